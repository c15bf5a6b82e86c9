package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// sshTimeout is how long a server may take to let somebody in.
const sshTimeout = 30 * time.Second

// dial logs in to the server. Errors: ErrRefused, where trying again is of no use.
func (p *SFTP) dial(ctx context.Context) (_ *sftpConnection, err error) {
	port := p.Port
	if port == 0 {
		port = 22
	}
	address := net.JoinHostPort(p.Host, strconv.Itoa(port))
	login, err := p.login()
	if err != nil {
		return nil, err
	}
	trust, err := p.trust()
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: sshTimeout}
	network, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = network.Close() }) // whatever it is doing
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = network.Close() // the first error tells more
		}
	}()
	if err := network.SetDeadline(time.Now().Add(sshTimeout)); err != nil {
		return nil, err
	}
	client, err := handshake(network, address, p.User, login, trust)
	if err != nil {
		return nil, err
	}
	session, err := sftp.NewClient(client, sftpOptions...)
	if err != nil {
		return nil, err
	}
	return newSFTPConnection(session, network), network.SetDeadline(time.Time{})
}

// handshake says who the user is to a server that is the right one.
func handshake(network net.Conn, address, user string, login ssh.AuthMethod, trust ssh.HostKeyCallback) (*ssh.Client, error) {
	var untrusted error
	trusted := false
	conn, channels, requests, err := ssh.NewClientConn(network, address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{login}, HostKeyAlgorithms: algorithms(trust, address, network.RemoteAddr()),
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			untrusted = trust(host, remote, key)
			trusted = untrusted == nil
			return untrusted
		},
	})
	var dropped net.Error
	switch {
	case err == nil:
		return ssh.NewClient(conn, channels, requests), nil
	case untrusted != nil:
		return nil, fmt.Errorf("%w: %s", ErrRefused, distrust(untrusted))
	case trusted && !errors.As(err, &dropped) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: %w", ErrRefused, errors.Unwrap(err)) // which methods were tried
	default:
		return nil, err
	}
}

// distrust says why a server isn't the right one.
func distrust(err error) string {
	var unknown *knownhosts.KeyError
	switch {
	case !errors.As(err, &unknown):
		return "the server's key: " + err.Error()
	case len(unknown.Want) == 0:
		return "the server's key is not among the known hosts: compare it and add it"
	default:
		return fmt.Sprintf("the server's key is not the one that is known (line %d of the known hosts): "+
			"the server was set up anew, or this is another one", unknown.Want[0].Line)
	}
}

// algorithms are those of the keys by which a server is known, so that it shows one of these; nil: any.
func algorithms(trust ssh.HostKeyCallback, address string, remote net.Addr) (names []string) {
	var known *knownhosts.KeyError
	if !errors.As(trust(address, remote, noKey{}), &known) {
		return nil
	}
	for _, k := range known.Want {
		if name := k.Key.Type(); name == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			names = append(names, name)
		}
	}
	return names
}

// noKey is the key of no server.
type noKey struct{ ssh.PublicKey }

func (noKey) Type() string    { return "none" }
func (noKey) Marshal() []byte { return nil }

// login is how the user proves who he is.
func (p *SFTP) login() (ssh.AuthMethod, error) {
	if p.Password.IsSet() {
		return ssh.Password(p.Password.Reveal()), nil
	}
	key, from := []byte(p.Key.Reveal()), "the private key"
	if len(key) == 0 {
		var err error
		if key, err = os.ReadFile(p.KeyFile); err != nil {
			return nil, fmt.Errorf("%w: the private key: %w", ErrRefused, err)
		}
		from = "the private key in " + p.KeyFile
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %s can't be used: %w", ErrRefused, from, err)
	}
	return ssh.PublicKeys(signer), nil
}

// trust tells by known hosts whether a server is the right one.
func (p *SFTP) trust() (ssh.HostKeyCallback, error) {
	file := p.KnownHostsFile
	if p.KnownHosts != "" {
		f, err := os.CreateTemp("", "terraform-vm-known-hosts-")
		if err != nil {
			return nil, err
		}
		file = f.Name()
		defer os.Remove(file) //nolint:errcheck // it holds no secret
		_, err = f.WriteString(p.KnownHosts)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	} else if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("%w: the known hosts: %w", ErrRefused, err)
		}
		file = filepath.Join(home, ".ssh", "known_hosts")
	}
	trust, err := knownhosts.New(file)
	if err != nil {
		return nil, fmt.Errorf("%w: the known hosts: %w", ErrRefused, err)
	}
	return trust, nil
}
