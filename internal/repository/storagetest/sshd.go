package storagetest

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// An SSHD is a real SSH server, for the user who runs the test.
type SSHD struct {
	User string
	Key  string // the user's private key, in PEM form
	Dir  string // of the user alone

	host    string // the server's public key
	address string
}

// sshdConfig serves files alone, to the one key.
const sshdConfig = `HostKey %[1]s/host
AuthorizedKeysFile %[1]s/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
`

// NewSSHD starts a server.
func NewSSHD(t testing.TB) *SSHD {
	t.Helper()
	program := sshd(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	host, hostLine := newKey(t)
	key, line := newKey(t)
	for name, content := range map[string]string{
		"host": host, "authorized": line, "config": fmt.Sprintf(sshdConfig, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { serveSSH(l, program, filepath.Join(dir, "config"), &serving) })
	t.Cleanup(func() { // after the networks were cut, which ends what is served
		_ = l.Close()
		serving.Wait()
	})
	return &SSHD{User: me.Username, Key: key, Dir: t.TempDir(), host: hostLine, address: l.Addr().String()}
}

// Network is a new way to the server, apart from all others, and the line for it in a known_hosts file.
func (s *SSHD) Network(t testing.TB) (network *Proxy, knownHosts string) {
	t.Helper()
	network = NewProxy(t, "tcp", s.address)
	return network, fmt.Sprintf("[127.0.0.1]:%d %s", network.Addr().Port, s.host)
}

// sshd is the program, and all that it needs to run.
func sshd(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("sshd")
	if err != nil {
		program = "/usr/sbin/sshd" // is not on everybody's PATH
	}
	if _, err := os.Stat(program); err != nil {
		Missing(t, "sshd: install openssh-server")
	}
	if os.Geteuid() == 0 { // which the service of the system makes
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return program
}

// serveSSH has a process of its own serve each connection, as inetd does: there is no port that another could take.
func serveSSH(l *net.TCPListener, program, config string, serving *sync.WaitGroup) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return
		}
		file, err := conn.File()
		_ = conn.Close() // the file is another handle of it
		if err != nil {
			continue
		}
		cmd := exec.Command(program, "-i", "-e", "-f", config) //nolint:noctx // ends with its connection
		cmd.Stdin, cmd.Stdout = file, file
		serving.Go(func() {
			defer file.Close() //nolint:errcheck // the server has ended
			_ = cmd.Run()      // it fails when the connection is cut
		})
	}
}

// newKey makes a key: the private one in PEM form, and the line of the public one.
func newKey(t testing.TB) (private, line string) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), string(ssh.MarshalAuthorizedKey(sshPublic))
}
