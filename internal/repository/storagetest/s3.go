package storagetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Credentials of the S3 server, and its bucket.
const (
	S3AccessKey = "AKIAIOSFODNN7EXAMPLE"
	S3SecretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" //nolint:gosec // of a server on the loopback interface
	S3Region    = "eu-central-1"
	S3Bucket    = "backups"
)

// An S3 is a real S3 server with one bucket.
type S3 struct {
	Client *minio.Client // of somebody else

	socket string
}

// GCSRegion is what Google Cloud Storage calls the region of its buckets, for clients of S3.
const GCSRegion = "auto"

// NewS3 starts a server. With lock, its bucket keeps versions, and can lock objects.
func NewS3(t testing.TB, lock bool) *S3 {
	t.Helper()
	return newS3(t, S3Region, lock)
}

// NewGCS starts an S3 server that takes itself for where Google Cloud Storage is.
func NewGCS(t testing.TB) *S3 {
	t.Helper()
	return newS3(t, GCSRegion, false)
}

func newS3(t testing.TB, region string, lock bool) *S3 {
	t.Helper()
	dir, path := t.TempDir(), socket(t)
	for _, d := range []string{"data", "meta", "versions"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), Program(t, "versitygw", "github.com/versity/versitygw/cmd/versitygw"),
		"--port", path, "--region", region, "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "meta"), "--versioning-dir", filepath.Join(dir, "versions"), filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+S3AccessKey, "ROOT_SECRET_KEY="+S3SecretKey)
	run(t, cmd, "unix", path)
	s := &S3{socket: path}
	var err error
	s.Client, err = minio.New(s.Network(t).Addr().String(), &minio.Options{
		Creds: credentials.NewStaticV4(S3AccessKey, S3SecretKey, ""), Region: region,
	})
	if err == nil {
		err = s.Client.MakeBucket(t.Context(), S3Bucket, minio.MakeBucketOptions{Region: region, ObjectLocking: lock})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Network is a new way to the server, apart from all others.
func (s *S3) Network(t testing.TB) *Proxy {
	t.Helper()
	return NewProxy(t, "unix", s.socket)
}
