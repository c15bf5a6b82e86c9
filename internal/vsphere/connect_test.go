package vsphere

import (
	"context"
	"crypto/sha1" // thumbprints
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

const testPassword = "s3cret-Pa55"

// simulate starts a bare simulator, which has no data plane, for tests that need no more.
func simulate(t *testing.T, model *simulator.Model) *simulator.Server {
	t.Helper()
	if err := model.Create(); err != nil {
		t.Fatal(err)
	}
	model.Service.TLS = new(tls.Config)
	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{User: url.UserPassword("operator", testPassword), Host: "127.0.0.1:0"}
	server := model.Service.NewServer()
	t.Cleanup(func() {
		server.Close()
		model.Remove()
	})
	return server
}

// pinned is a configuration for a simulator that verifies its certificate.
func pinned(server *simulator.Server) Config {
	return Config{
		Server: server.URL.Host, User: "operator", Password: secret.New(testPassword),
		Thumbprint: soap.ThumbprintSHA256(server.Certificate()),
	}
}

// dial connects, and closes at the end of the test.
func dial(t testing.TB, config Config) *Client {
	t.Helper()
	c, err := Connect(t.Context(), config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestConnect_certificates(t *testing.T) {
	t.Parallel()
	server := simulate(t, simulator.VPX())
	cert := server.Certificate()
	sum := sha1.Sum(cert.Raw) // thumbprints
	sha256 := soap.ThumbprintSHA256(cert)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change  func(*Config)
		refused bool
	}{
		"untrusted":          {func(c *Config) {}, true},
		"ca_file":            {func(c *Config) { c.CAFile = caFile }, false},
		"verification off":   {func(c *Config) { c.AllowUnverifiedSSL = true }, false},
		"sha256":             {func(c *Config) { c.Thumbprint = sha256 }, false},
		"sha256 plain lower": {func(c *Config) { c.Thumbprint = strings.ToLower(strings.ReplaceAll(sha256, ":", "")) }, false},
		"sha256 named":       {func(c *Config) { c.Thumbprint = "SHA256:" + sha256 }, false},
		"sha1 colons":        {func(c *Config) { c.Thumbprint = soap.ThumbprintSHA1(cert) }, false},
		"sha1 plain":         {func(c *Config) { c.Thumbprint = hex.EncodeToString(sum[:]) }, false},
		"other sha256":       {func(c *Config) { c.Thumbprint = strings.Repeat("ab", 32) }, true},
		"other sha1":         {func(c *Config) { c.Thumbprint = strings.Repeat("ab", 20) }, true},
		// The pin counts, whoever vouches for the certificate.
		"other pin with ca_file": {func(c *Config) { c.CAFile, c.Thumbprint = caFile, strings.Repeat("ab", 32) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := Config{Server: server.URL.Host, User: "operator", Password: secret.New(testPassword)}
			tt.change(&config)
			c, err := Connect(t.Context(), config, slog.New(slog.DiscardHandler))
			if !tt.refused {
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				return
			}
			var refused *hypervisor.CertificateError
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want a CertificateError", err)
			}
			if refused.Thumbprint != sha256 || refused.Server != server.URL.Host {
				t.Errorf("the error names %s of %s, want %s of %s", refused.Thumbprint, refused.Server, sha256, server.URL.Host)
			}
		})
	}
}

func TestConnect_otherHostName(t *testing.T) {
	t.Parallel()
	server := simulate(t, simulator.VPX())
	// The certificate is for 127.0.0.1 and example.com, not for this name of the same machine.
	_, port, err := net.SplitHostPort(server.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Connect(t.Context(), Config{
		Server: "localhost:" + port, User: "operator", Password: secret.New(testPassword), CAFile: caFile,
	}, slog.New(slog.DiscardHandler))
	var refused *hypervisor.CertificateError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want a CertificateError", err)
	}
}

func TestConnect_serverForms(t *testing.T) {
	t.Parallel()
	server := simulate(t, simulator.VPX())
	host := server.URL.Host
	for _, form := range []string{host, " " + host + " ", "https://" + host, "https://" + host + "/", "https://" + host + "/sdk"} {
		config := pinned(server)
		config.Server = form
		dial(t, config)
	}
}

func TestConnect_badConfig(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := Config{Server: "vcenter.example.com", User: "operator", Password: secret.New(testPassword)}
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no server":         {func(c *Config) { c.Server = " " }, "server:"},
		"no user":           {func(c *Config) { c.User = "" }, "user:"},
		"user info":         {func(c *Config) { c.Server = "https://operator:" + testPassword + "@vc" }, "server:"},
		"broken with info":  {func(c *Config) { c.Server = "https://operator:" + testPassword + "%zz@vc" }, "server:"},
		"broken":            {func(c *Config) { c.Server = "https://vc:port" }, "server:"},
		"http":              {func(c *Config) { c.Server = "http://vc" }, "server:"},
		"ca_file missing":   {func(c *Config) { c.CAFile = empty + ".gone" }, "ca_file:"},
		"ca_file garbage":   {func(c *Config) { c.CAFile = empty }, "ca_file:"},
		"thumbprint short":  {func(c *Config) { c.Thumbprint = "ab:cd" }, "thumbprint:"},
		"thumbprint no hex": {func(c *Config) { c.Thumbprint = strings.Repeat("zz", 20) }, "thumbprint:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := good
			tt.change(&config)
			_, err := Connect(t.Context(), config, slog.New(slog.DiscardHandler))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error about %s", err, tt.want)
			}
			if strings.Contains(err.Error(), testPassword) {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

func TestConnect_wrongPassword(t *testing.T) {
	t.Parallel()
	server := simulate(t, simulator.VPX())
	config := pinned(server)
	config.Password = secret.New("wrong-" + testPassword)
	_, err := Connect(t.Context(), config, slog.New(slog.DiscardHandler))
	if !errors.Is(err, hypervisor.ErrLogin) {
		t.Fatalf("got %v, want ErrLogin", err)
	}
	if strings.Contains(err.Error(), testPassword) {
		t.Errorf("the password is in the error: %v", err)
	}
}

func TestConnect_unreachable(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a port that takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for name, addr := range map[string]string{
		"refused": "127.0.0.1:1", "silent": silent.Addr().String(), "no such host": "vcenter.invalid",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Connect(t.Context(), Config{
				Server: addr, User: "operator", Password: secret.New(testPassword), DialTimeout: 300 * time.Millisecond,
			}, slog.New(slog.DiscardHandler))
			var unreachable *hypervisor.UnreachableError
			if !errors.As(err, &unreachable) || unreachable.Server != addr {
				t.Fatalf("got %v, want an UnreachableError of %s", err, addr)
			}
		})
	}
}

func TestConnect_cancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // without that the server does not see the client go
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	_, err := Connect(ctx, Config{
		Server: server.Listener.Addr().String(), User: "u", Password: secret.New("p"), AllowUnverifiedSSL: true,
	}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
}

func TestConnect_noVSphere(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"not found": http.NotFound,
		"a page":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html><body>hello</body></html>") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewTLSServer(handler)
			t.Cleanup(server.Close)
			_, err := Connect(t.Context(), Config{
				Server: server.Listener.Addr().String(), User: "u", Password: secret.New("p"), AllowUnverifiedSSL: true,
			}, slog.New(slog.DiscardHandler))
			var unreachable *hypervisor.UnreachableError
			if err == nil || errors.As(err, &unreachable) {
				t.Fatalf("got %v, want an error that says this is no vSphere", err)
			}
		})
	}
}

func TestClient_Server(t *testing.T) {
	t.Parallel()
	for name, model := range map[string]*simulator.Model{"vCenter": simulator.VPX(), "ESXi": simulator.ESX()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, pinned(simulate(t, model)))
			first, err := c.Server(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			second, err := c.Server(t.Context())
			if err != nil || first == "" || first != second {
				t.Fatalf("got %q, then %q and %v", first, second, err)
			}
		})
	}
}

func TestClient_Close(t *testing.T) {
	t.Parallel()
	model := simulator.VPX()
	server := simulate(t, model)
	c, err := Connect(t.Context(), pinned(server), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.FindVM(t.Context(), "DC0_H0_VM0"); err == nil {
		t.Error("a closed client still works")
	}
}
