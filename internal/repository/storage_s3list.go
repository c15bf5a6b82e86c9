package repository

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/s3"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// s3Storage is Kopia's storage with lists that are complete. That one (v0.23.1) has minio-go (v7.2.0) make something of whatever
// XML comes with a status of 200, be it an error or a page to log in: an end of the list. Amazon says that there can be such
// answers (API reference, ListObjectsV2).
type s3Storage struct {
	blob.Storage
	lists          *minio.Client
	transport      *http.Transport
	bucket, prefix string
}

func newS3Storage(base blob.Storage, o *s3.Options) (*s3Storage, error) {
	keys := credentials.NewStaticV4(o.AccessKeyID, o.SecretAccessKey, o.SessionToken)
	if o.AccessKeyID == "" {
		keys = credentials.New(&credentials.IAM{Client: &http.Client{Transport: defaultTransport(), Timeout: roleTimeout}})
	}
	transport := defaultTransport()
	switch {
	case o.DoNotVerifyTLS:
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // as it is configured
	case len(o.RootCA) > 0:
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(o.RootCA) // Kopia did, too
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	lists, err := minio.New(o.Endpoint, &minio.Options{
		Creds: keys, Secure: !o.DoNotUseTLS, Region: o.Region, Transport: s3Lists{transport},
	})
	return &s3Storage{Storage: base, lists: lists, transport: transport, bucket: o.BucketName, prefix: o.Prefix}, err
}

// Close implements blob.Storage.
func (s *s3Storage) Close(ctx context.Context) error {
	s.transport.CloseIdleConnections()
	return s.Storage.Close(ctx)
}

// ListBlobs implements blob.Storage.
func (s *s3Storage) ListBlobs(ctx context.Context, prefix blob.ID, yield func(blob.Metadata) error) error {
	listing, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.lists.ListObjects(listing, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + string(prefix)}) {
		if o.Err != nil {
			return o.Err
		}
		name, ok := strings.CutPrefix(o.Key, s.prefix)
		if !ok || !strings.HasPrefix(name, string(prefix)) {
			return fmt.Errorf("the list has %q, which doesn't begin with %q", o.Key, s.prefix+string(prefix))
		}
		if name == s3.ConfigName {
			continue
		}
		if err := yield(blob.Metadata{BlobID: blob.ID(name), Length: o.Size, Timestamp: o.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err() // between two pages, the library says nothing of it
}

// s3Lists sees to it that what is taken for a list is one.
type s3Lists struct{ base http.RoundTripper }

// mostPage is the most that a page of a list has, in bytes: a thousand names of a kilobyte, and what is said of each.
const mostPage = 16 * mib

// RoundTrip implements http.RoundTripper.
func (t s3Lists) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.base.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusOK || !r.URL.Query().Has("list-type") {
		return answer, err
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, mostPage))
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return nil, fmt.Errorf("read a list: %w", err)
	}
	var list struct{ XMLName xml.Name }
	if err := xml.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("read a list: %w", err)
	}
	if list.XMLName.Local != "ListBucketResult" {
		return nil, fmt.Errorf("the answer is not a list, but %q", list.XMLName.Local)
	}
	answer.Body = io.NopCloser(bytes.NewReader(b))
	return answer, nil
}
