package vsphere

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"crypto/x509"

	"github.com/vmware/govmomi/vim25/soap"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// A Config says how to connect to a vCenter or an ESXi host.
type Config struct {
	Server   string // "host", "host:port", or a URL without user information
	User     string
	Password secret.String

	// CAFile names a file of PEM certificates that are trusted instead of the system's.
	CAFile string

	// Thumbprint pins the server's certificate: SHA-1 or SHA-256 in hexadecimal, with or without
	// colons. A server that presents another certificate is refused, whoever signed it.
	Thumbprint string

	// AllowUnverifiedSSL turns off the verification of certificates altogether.
	AllowUnverifiedSSL bool

	// How many disk transfers may run at a time. Zero means 2, 4 and 8. vCenter proxies some 50 of
	// these connections, an ESXi host serves about as many and shares them with clones and migrations
	// (VMware KB 307001).
	MaxTransfersPerVM     int
	MaxTransfersPerHost   int
	MaxTransfersPerServer int

	// Transports are the ways to read disks, the preferred one first: TransportDatastore, TransportExport.
	// Each disk is read in the first of them that is possible for it. Empty: both, in that order.
	Transports []string

	// MaxRangesPerDisk is how many parts of a disk's file are read at a time by TransportDatastore, on a
	// connection each. Zero: 4.
	MaxRangesPerDisk int

	// ReadTimeout is how long the server may send nothing of a datastore's file before the connection is
	// given up. Zero: 1 minute.
	ReadTimeout time.Duration

	// UserAgent is sent with every request. Empty: the name of this provider.
	UserAgent string

	// DialTimeout limits how long a TCP connection, and then a TLS handshake, may take. Zero: 15 s.
	DialTimeout time.Duration

	// KeepAlive is how often an idle session is used so that the server doesn't end it; a vCenter does
	// so after 30 minutes (VMware KB 1031039). Zero: 5 minutes.
	KeepAlive time.Duration
}

// Defaults of a Config.
const (
	defaultTransfersPerVM     = 2
	defaultTransfersPerHost   = 4
	defaultTransfersPerServer = 8
	defaultRangesPerDisk      = 4
	defaultReadTimeout        = time.Minute
	defaultDialTimeout        = 15 * time.Second
	defaultKeepAlive          = 5 * time.Minute
	defaultUserAgent          = "terraform-provider-vm"
)

// withDefaults returns the configuration with the zero values filled in, and the server's URL.
// Errors never repeat what Server says beyond its host, since it may hold a password by mistake.
func (c Config) withDefaults() (Config, *url.URL, error) {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&c.MaxTransfersPerVM, defaultTransfersPerVM)
	set(&c.MaxTransfersPerHost, defaultTransfersPerHost)
	set(&c.MaxTransfersPerServer, defaultTransfersPerServer)
	set(&c.MaxRangesPerDisk, defaultRangesPerDisk)
	if c.ReadTimeout <= 0 {
		c.ReadTimeout = defaultReadTimeout
	}
	if len(c.Transports) == 0 {
		c.Transports = []string{TransportDatastore, TransportExport}
	}
	for i, name := range c.Transports {
		if name != TransportDatastore && name != TransportExport {
			return c, nil, fmt.Errorf("transports: there is no transport %q, only %q and %q",
				name, TransportDatastore, TransportExport)
		}
		if slices.Contains(c.Transports[:i], name) {
			return c, nil, fmt.Errorf("transports: %q is there twice", name)
		}
	}
	if c.DialTimeout <= 0 {
		c.DialTimeout = defaultDialTimeout
	}
	if c.KeepAlive <= 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.UserAgent == "" {
		c.UserAgent = defaultUserAgent
	}
	u, err := serverURL(c.Server)
	if err != nil {
		return c, nil, err
	}
	if c.User == "" {
		return c, nil, errors.New("user: is empty")
	}
	return c, u, nil
}

// serverURL makes a URL of what a person writes to name a server.
func serverURL(server string) (*url.URL, error) {
	server = strings.TrimSpace(server)
	if server == "" {
		return nil, errors.New("server: is empty")
	}
	if strings.Contains(server, "@") {
		return nil, errors.New("server: must not hold a user name or password; use user and password")
	}
	u, err := soap.ParseURL(server)
	if err != nil || u.Hostname() == "" { // the error repeats the input
		return nil, errors.New("server: is not of the form host, host:port or https://host:port")
	}
	if u.Scheme != "https" {
		return nil, fmt.Errorf("server: scheme %q is not supported, only https is", u.Scheme)
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	if u.Path == "/" {
		u.Path = "/sdk"
	}
	return u, nil
}

// rootCAs reads CAFile. It returns nil, meaning the system's, when there is none.
func (c Config) rootCAs() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: %s holds no PEM certificate", c.CAFile)
	}
	return pool, nil
}

// pin decodes Thumbprint to 20 bytes of SHA-1 or 32 bytes of SHA-256; nil when there is none.
func (c Config) pin() ([]byte, error) {
	if c.Thumbprint == "" {
		return nil, nil
	}
	s := strings.ToLower(strings.TrimSpace(c.Thumbprint))
	for _, prefix := range []string{"sha256:", "sha-256:", "sha1:", "sha-1:"} {
		s = strings.TrimPrefix(s, prefix)
	}
	s = strings.NewReplacer(":", "", " ", "", "-", "").Replace(s)
	b, err := hex.DecodeString(s)
	if err != nil || (len(b) != 20 && len(b) != 32) {
		return nil, errors.New("thumbprint: is not 20 bytes (SHA-1) or 32 bytes (SHA-256) in hexadecimal")
	}
	return b, nil
}
