package repository

import (
	"bytes"
	"errors"
	"path"
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
	return func(t *testing.T, name string) (Config, *storagetest.Proxy) {
		network := s.Network(t)
		return placeConfig(&S3{
			Bucket: s.Bucket, Prefix: name + "/", Endpoint: network.URL(), Region: storagetest.S3Region,
			AccessKeyID: storagetest.S3AccessKey, SecretAccessKey: secret.New(storagetest.S3SecretKey),
		}), network
	}
}

// startSSHD starts an SSH server.
func startSSHD(t *testing.T) server {
	s := storagetest.NewSSHD(t)
	return func(t *testing.T, name string) (Config, *storagetest.Proxy) {
		network, hosts := s.Network(t)
		return placeConfig(&SFTP{
			Host: "127.0.0.1", Port: network.Addr().Port, User: s.User, Path: path.Join(s.Dir, name),
			Key: secret.New(s.Key), KnownHosts: hosts,
		}), network
	}
}

func placeConfig(p Place) Config {
	return Config{Password: secret.New(testPassword), Create: true, Place: p}
}

// onServers runs a test on every kind of server that there is.
func onServers(t *testing.T, test func(t *testing.T, connect server)) {
	t.Helper()
	for name, start := range map[string]func(*testing.T) server{"s3": startS3, "sftp": startSSHD} {
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
		if _, err := Open(t.Context(), below); !errors.Is(err, ErrNoRepository) || errors.Is(err, ErrNotMade) {
			t.Errorf("below another repository: %v", err)
		}
	})
}
