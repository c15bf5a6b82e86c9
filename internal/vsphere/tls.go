package vsphere

import (
	"bytes"
	"context"
	"crypto/sha1" // vSphere itself hands out SHA-1 thumbprints of its hosts
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/soap"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// errPin is why a certificate is refused that isn't the pinned one.
var errPin = errors.New("it is not the certificate that the configured thumbprint names")

// trust decides which certificates are accepted: the pinned one for the server itself; for ESXi hosts
// the thumbprint that came with a lease; and whatever the roots vouch for.
type trust struct {
	server string // host:port that the pin is about
	pin    []byte
	roots  *x509.CertPool
	off    bool

	// known returns the thumbprint that vCenter gave for host:port, or "".
	known func(addr string) string
	now   func() time.Time
}

// check judges the certificates that the server at addr presented.
func (t *trust) check(addr string, certs []*x509.Certificate) error {
	if t.off {
		return nil
	}
	if len(certs) == 0 {
		return &hypervisor.CertificateError{Server: addr, Err: errors.New("no certificate was presented")}
	}
	leaf := certs[0]
	refuse := func(err error) error {
		return &hypervisor.CertificateError{Server: addr, Thumbprint: soap.ThumbprintSHA256(leaf), Err: err}
	}
	if t.pin != nil && strings.EqualFold(addr, t.server) {
		if !matchesPin(t.pin, leaf) {
			return refuse(errPin)
		}
		return nil
	}
	if known := t.known(addr); known != "" && matchesThumbprint(known, leaf) {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return refuse(err)
	}
	pool := x509.NewCertPool()
	for _, c := range certs[1:] {
		pool.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		DNSName: strings.TrimSuffix(host, "."), Roots: t.roots, Intermediates: pool, CurrentTime: t.now(),
	})
	if err != nil {
		return refuse(err)
	}
	return nil
}

func matchesPin(pin []byte, cert *x509.Certificate) bool {
	if len(pin) == sha1.Size {
		sum := sha1.Sum(cert.Raw)
		return bytes.Equal(pin, sum[:])
	}
	sum := sha256.Sum256(cert.Raw)
	return bytes.Equal(pin, sum[:])
}

// matchesThumbprint compares with a thumbprint in any of the forms that a Config takes.
func matchesThumbprint(thumbprint string, cert *x509.Certificate) bool {
	pin, err := Config{Thumbprint: thumbprint}.pin()
	return err == nil && pin != nil && matchesPin(pin, cert)
}

// install makes the transport dial and verify as t says.
//
// The handshake is done here rather than by the transport so that the host and port are known when the
// certificate is judged, and so that what was presented is at hand without a second connection.
func (t *trust) install(transport *http.Transport, dialTimeout time.Duration) {
	dialer := &net.Dialer{
		Timeout: dialTimeout,
		// A peer that is gone is noticed within a minute, also by a stream that only waits.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3},
	}
	transport.DialContext = dialer.DialContext
	transport.TLSHandshakeTimeout = dialTimeout
	transport.MaxIdleConnsPerHost = 32
	transport.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tlsConn := tls.Client(conn, t.config(addr))
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if err := tlsConn.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return tlsConn, nil
	}
	// Behind a proxy the transport does the handshake itself, with this configuration.
	transport.TLSClientConfig = t.config("")
}

// config returns a TLS configuration whose verification is check. Without addr, the address is taken
// from the handshake.
func (t *trust) config(addr string) *tls.Config {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = ""
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         host,
		InsecureSkipVerify: true, // VerifyConnection verifies, by thumbprint or by chain
		VerifyConnection: func(state tls.ConnectionState) error {
			target := addr
			if target == "" {
				target = net.JoinHostPort(state.ServerName, "443")
				if host, port, err := net.SplitHostPort(t.server); err == nil && strings.EqualFold(host, state.ServerName) {
					target = net.JoinHostPort(host, port)
				}
			}
			if strings.HasPrefix(target, ":") && !t.off {
				return errors.New("a server behind a proxy must be given by its name, not by its address")
			}
			return t.check(target, state.PeerCertificates)
		},
	}
}
