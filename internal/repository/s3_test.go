package repository

import (
	"bytes"
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// s3Config is a repository on a real S3 server.
func s3Config(s *storagetest.S3) Config {
	return Config{Password: secret.New(testPassword), Create: true, Place: &S3{
		Bucket: s.Bucket, Prefix: "vm/", Endpoint: s.Endpoint(), Region: storagetest.S3Region,
		AccessKeyID: storagetest.S3AccessKey, SecretAccessKey: secret.New(storagetest.S3SecretKey),
	}}
}

func TestS3(t *testing.T) {
	t.Parallel()
	s := storagetest.NewS3(t, false)
	c := s3Config(s)
	c.Create = false
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrNotMade) {
		t.Errorf("nothing is there: %v", err)
	}
	c.Create = true
	r := open(t, c)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	if b := readDisk(t, open(t, c), id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}

	inner, ok := c.Place.(*S3)
	if !ok {
		t.Fatalf("a place of type %T", c.Place)
	}
	below := *inner
	below.Prefix = "vm/qa/"
	c.Place = &below
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrNoRepository) || errors.Is(err, ErrNotMade) {
		t.Errorf("below another repository: %v", err)
	}
}
