package repository

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// A server is a real one. connect gives a repository there, by a name, and a network to it of its own.
type server func(t *testing.T, name string) (Config, *storagetest.Proxy)

// startS3 starts an S3 server.
func startS3(t *testing.T) server {
	s := storagetest.NewS3(t, false)
	return func(t *testing.T, name string) (Config, *storagetest.Proxy) { return connectS3(t, s, name) }
}

func connectS3(t *testing.T, s *storagetest.S3, name string) (Config, *storagetest.Proxy) {
	network := s.Network(t)
	return placeConfig(s3PlaceAt(network.URL(), name)), network
}

func s3PlaceAt(url, name string) *S3 {
	return &S3{
		Bucket: storagetest.S3Bucket, Prefix: name + "/", Endpoint: url, Region: storagetest.S3Region,
		AccessKeyID: storagetest.S3AccessKey, SecretAccessKey: secret.New(storagetest.S3SecretKey),
	}
}

// startSSHD starts an SSH server.
func startSSHD(t *testing.T) server { return onSSHD(storagetest.NewSSHD(t)) }

func onSSHD(s *storagetest.SSHD) server {
	return func(t *testing.T, name string) (Config, *storagetest.Proxy) {
		network, hosts := s.Network(t)
		return placeConfig(&SFTP{
			Host: "127.0.0.1", Port: network.Addr().Port, User: s.User, Path: path.Join(s.Dir, name),
			Key: secret.New(s.Key), KnownHosts: hosts,
		}), network
	}
}

// startWebDAV starts a WebDAV server.
func startWebDAV(t *testing.T) server {
	s := storagetest.NewWebDAV(t)
	return func(t *testing.T, name string) (Config, *storagetest.Proxy) {
		if err := os.MkdirAll(filepath.Join(s.Dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		return onWebDAV(s)(t, name)
	}
}

func onWebDAV(s *storagetest.WebDAV) server {
	return func(t *testing.T, name string) (Config, *storagetest.Proxy) {
		network := s.Network(t)
		return placeConfig(&WebDAV{
			URL: network.URL() + "/" + name, User: storagetest.WebDAVUser, Password: secret.New(storagetest.WebDAVPassword),
		}), network
	}
}

// startGCS starts an S3 server in the place of Google's.
func startGCS(t *testing.T) server {
	s := storagetest.NewGCS(t)
	return func(t *testing.T, name string) (Config, *storagetest.Proxy) {
		network := s.Network(t)
		return placeConfig(&GCS{
			Bucket: storagetest.S3Bucket, Prefix: name + "/", AccessID: storagetest.S3AccessKey,
			Secret: secret.New(storagetest.S3SecretKey), endpoint: network.URL(),
		}), network
	}
}

// startAzure starts a server that speaks the protocol of Azure Blob Storage.
func startAzure(t *testing.T) server { return onAzure(storagetest.NewAzure(t)) }

func onAzure(s *storagetest.Azure) server {
	return func(t *testing.T, name string) (Config, *storagetest.Proxy) {
		network, endpoint := s.Network(t)
		return placeConfig(&Azure{
			Account: storagetest.AzureAccount, Container: storagetest.AzureContainer, Prefix: name + "/",
			Key: secret.New(storagetest.AzureKey), Endpoint: endpoint,
		}), network
	}
}

func placeConfig(p Place) Config {
	return Config{Password: secret.New(testPassword), Create: true, Place: p}
}

// servers are of every kind that there is.
var servers = map[string]func(*testing.T) server{
	"s3": startS3, "sftp": startSSHD, "webdav": startWebDAV, "gcs": startGCS, "azure": startAzure,
}

// onServers runs a test on servers of some kinds.
func onServers(t *testing.T, test func(t *testing.T, connect server), kinds ...string) {
	t.Helper()
	for _, name := range kinds {
		start := servers[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// A repository in a place is made by the first who may, and is the same for all who open it.
func TestPlace(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, connect server) {
		c, _ := connect(t, "backups")
		c.Create = false
		if _, err := Open(t.Context(), c); !errors.Is(err, ErrNotMade) {
			t.Errorf("nothing is there: %v", err)
		}
		c.Create = true
		r := open(t, c)
		id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
		other := open(t, c)
		if other.ID() != r.ID() {
			t.Errorf("repositories %s and %s at one place", r.ID(), other.ID())
		}
		if b := readDisk(t, other, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
			t.Error("the disk differs")
		}
		below, _ := connect(t, "backups/qa")
		if len(below.Place.around()) == 0 {
			return
		}
		if _, err := Open(t.Context(), below); !errors.Is(err, ErrNoRepository) || errors.Is(err, ErrNotMade) {
			t.Errorf("below another repository: %v", err)
		}
	}, "s3", "sftp", "webdav", "gcs", "azure")
}

func init() { children["back up in s3"] = backUpInS3 }

// backUpInS3 is backUpOnce on an S3 server.
func backUpInS3(ctx context.Context, url string) error {
	r, err := Open(ctx, placeConfig(s3PlaceAt(url, "shared")))
	if err != nil {
		return err
	}
	return backUpOnceTo(ctx, r)
}

// TestPlaceProcesses has several processes make a repository on an S3 server and back up at once.
func TestPlaceProcesses(t *testing.T) {
	t.Parallel()
	c, network := startS3(t)(t, "shared")
	concurrentProcesses(t, c, "back up in s3", network.URL())
}

// TestPlaceErrors says what is the matter with a place, without a secret.
func TestPlaceErrors(t *testing.T) {
	t.Parallel()
	s3, sshd, dav := startS3(t), startSSHD(t), startWebDAV(t)
	s3Place := func() *S3 { c, _ := s3(t, "x"); return c.Place.(*S3) }
	sftpPlace := func() *SFTP { c, _ := sshd(t, "x"); return c.Place.(*SFTP) }
	davPlace := func() *WebDAV { c, _ := dav(t, "x"); return c.Place.(*WebDAV) }
	_, strange := storagetest.NewSSHD(t).Network(t)
	_, key, _ := strings.Cut(strange, " ")
	hostOf := func(p *SFTP) string { host, _, _ := strings.Cut(p.KnownHosts, " "); return host }
	const wrong = "wrong-secret-123"
	for name, test := range map[string]struct {
		place Place
		want  error
		names string
	}{
		"s3, wrong key":    {func() Place { p := s3Place(); p.SecretAccessKey = secret.New(wrong); return p }(), ErrRefused, "SignatureDoesNotMatch"},
		"s3, no bucket":    {func() Place { p := s3Place(); p.Bucket = "nobodys"; return p }(), ErrNoRepository, "nobodys"},
		"s3, no key":       {func() Place { p := s3Place(); p.AccessKeyID = ""; return p }(), ErrRefused, "no access key"},
		"s3, bad endpoint": {func() Place { p := s3Place(); p.Endpoint = "ftp://x"; return p }(), ErrUnreachable, "ftp"},
		"s3, bad prefix":   {func() Place { p := s3Place(); p.Prefix = "vm"; return p }(), ErrUnreachable, "slash"},
		"s3, nobody":       {func() Place { p := s3Place(); p.Endpoint = "http://127.0.0.1:1"; return p }(), ErrUnreachable, "refused"},
		"sftp, nobody":     {func() Place { p := sftpPlace(); p.Port = 1; return p }(), ErrUnreachable, ""},
		"sftp, other host": {func() Place { p := sftpPlace(); p.KnownHosts = hostOf(p) + " " + key; return p }(), ErrRefused, "not the one that is known (line 1"},
		"sftp, unknown":    {func() Place { p := sftpPlace(); p.KnownHosts = "elsewhere " + key; return p }(), ErrRefused, "not among the known"},
		"sftp, no hosts":   {func() Place { p := sftpPlace(); p.KnownHosts, p.KnownHostsFile = "", "/no/such/hosts"; return p }(), ErrRefused, "/no/such/hosts: no such file"},
		"sftp, key file":   {func() Place { p := sftpPlace(); p.Key, p.KeyFile = secret.String{}, "/no/such/key"; return p }(), ErrRefused, "/no/such/key: no such file"},
		"sftp, bad key":    {func() Place { p := sftpPlace(); p.Key = secret.New(wrong); return p }(), ErrRefused, "can't be used"},
		"sftp, wrong key":  {func() Place { p := sftpPlace(); p.Key = secret.New(storagetest.NewSSHD(t).Key); return p }(), ErrRefused, "unable to authenticate"},
		"sftp, a file":     {func() Place { p := sftpPlace(); p.Path = "/etc/hosts"; return p }(), ErrNoRepository, "not a directory"},
		"sftp, no key":     {func() Place { p := sftpPlace(); p.Key = secret.String{}; return p }(), ErrRefused, "neither"},
		"sftp, relative":   {func() Place { p := sftpPlace(); p.Path = "x"; return p }(), ErrNoRepository, "absolute"},
		"webdav, wrong":    {func() Place { p := davPlace(); p.Password = secret.New(wrong); return p }(), ErrRefused, "401"},
		"webdav, nothing":  {func() Place { p := davPlace(); p.URL += "/no/such"; return p }(), ErrNoRepository, "doesn't exist"},
		"webdav, no URL":   {&WebDAV{URL: "ftp://x"}, ErrNoRepository, "URL"},
		"azure, no key":    {&Azure{Account: "a", Container: "c"}, ErrRefused, "credentials"},
		"azure, nobody":    {&Azure{Account: "127", Container: "c", SASToken: secret.New("sig=" + wrong), Endpoint: "http://0.0.1:1"}, ErrUnreachable, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(t.Context(), placeConfig(test.place))
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.names) {
				t.Errorf("error %v, want %v naming %q", err, test.want, test.names)
			}
			if err != nil && (strings.Contains(err.Error(), wrong) || strings.Contains(err.Error(), storagetest.S3SecretKey) ||
				strings.Contains(err.Error(), storagetest.WebDAVPassword)) {
				t.Errorf("the error gives a secret away: %v", err)
			}
		})
	}
}
