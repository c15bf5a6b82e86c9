package repository

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/s3"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// amazonEndpoint is where buckets are unless S3.Endpoint says otherwise.
const amazonEndpoint = "s3.amazonaws.com"

// S3 is a repository in a bucket of Amazon S3, or of a service that has the same interface.
type S3 struct {
	Bucket string
	Prefix string // of the names of all objects; ends with a slash unless it is empty

	// Endpoint is the service: host, host:port, or a URL whose scheme may be http. Empty: Amazon's.
	Endpoint string
	Region   string // empty: the service is asked

	AccessKeyID     string // empty, with InstanceRole: the keys come from the machine's or container's role
	SecretAccessKey secret.String
	SessionToken    secret.String
	InstanceRole    bool

	CA                 []byte // certificates in PEM form to trust instead of the system's
	AllowUnverifiedSSL bool

	Lock *ObjectLock
}

// String names the place without its secrets.
func (p *S3) String() string { return "s3://" + p.Bucket + "/" + p.Prefix }

func (p *S3) lock() *ObjectLock { return p.Lock }

func (p *S3) around() []Place {
	return around(p.Prefix, func(prefix string) Place {
		outer := *p
		outer.Prefix = prefix
		return &outer
	})
}

func (p *S3) connect(ctx context.Context) (blob.Storage, error) {
	o, err := p.options()
	if err != nil {
		return nil, err
	}
	if p.AccessKeyID == "" {
		if err := checkRole(); err != nil {
			return nil, err
		}
	}
	base, err := s3.New(ctx, o, false)
	if err != nil {
		return nil, err
	}
	return newS3Storage(base, o)
}

// roleTimeout is how long the machine may take to say which keys it has.
const roleTimeout = 15 * time.Second

// checkRole wants keys from the role of the machine or the container. Without any, Kopia's client would ask as nobody.
func checkRole() error {
	role := &credentials.IAM{Client: &http.Client{Transport: defaultTransport(), Timeout: roleTimeout}}
	keys, err := credentials.New(role).GetWithContext(nil)
	if err == nil && keys.AccessKeyID == "" {
		err = errors.New("it gives none")
	}
	if err != nil {
		return fmt.Errorf("%w: the role of the machine gives no keys: %s", ErrRefused, reason(err))
	}
	return nil
}

func (p *S3) options() (*s3.Options, error) {
	host, plain, err := splitEndpoint(p.Endpoint)
	switch {
	case err != nil:
		return nil, fmt.Errorf("endpoint %q: %w", p.Endpoint, err)
	case p.AccessKeyID == "" && !p.InstanceRole:
		return nil, fmt.Errorf("%w: there is no access key", ErrRefused)
	case host == "":
		host = amazonEndpoint
	}
	if err := checkPrefix(p.Prefix); err != nil {
		return nil, err
	}
	if len(p.CA) > 0 && !p.AllowUnverifiedSSL && defaultTransport().TLSClientConfig == nil { // Kopia (v0.23.1) relies on it
		return nil, fmt.Errorf("%w: certificates of one's own need HTTP/2, which GODEBUG=http2client=0 turns off", ErrRefused)
	}
	return &s3.Options{
		BucketName: p.Bucket, Prefix: p.Prefix,
		Endpoint: host, DoNotUseTLS: plain, Region: p.Region, RootCA: p.CA, DoNotVerifyTLS: p.AllowUnverifiedSSL,
		AccessKeyID: p.AccessKeyID, SecretAccessKey: p.SecretAccessKey.Reveal(), SessionToken: p.SessionToken.Reveal(),
	}, nil
}

// splitEndpoint takes what is written for a service apart: what Kopia wants is the host.
func splitEndpoint(endpoint string) (host string, plain bool, err error) {
	if !strings.Contains(endpoint, "://") {
		return endpoint, false, nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "", false, errors.New("it is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", false, fmt.Errorf("the scheme is %q instead of https or http", u.Scheme)
	case u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil:
		return "", false, errors.New("it must be a scheme and a host alone")
	}
	return u.Host, u.Scheme == "http", nil
}

// checkPrefix refuses a prefix with which the objects of two repositories could be mistaken for each other: that
// of one must not begin a name of the other's.
func checkPrefix(prefix string) error {
	if prefix != "" && (!strings.HasSuffix(prefix, "/") || strings.HasPrefix(prefix, "/")) {
		return fmt.Errorf("the prefix %q must end with a slash, and not begin with one", prefix)
	}
	return nil
}

// around are the places with the prefixes above one, which at makes: those of "a/b/" are "" and "a/".
func around(prefix string, at func(prefix string) Place) (places []Place) {
	for i := range prefix {
		if i == 0 || prefix[i-1] == '/' {
			places = append(places, at(prefix[:i]))
		}
	}
	return places
}

// GCS is a repository in a bucket of Google Cloud Storage, by its interface for clients of S3.
type GCS struct {
	Bucket string
	Prefix string // as S3.Prefix

	AccessID string // of an HMAC key
	Secret   secret.String

	endpoint string // empty: Google's
}

// String names the place without its secrets.
func (p *GCS) String() string { return "gs://" + p.Bucket + "/" + p.Prefix }

func (p *GCS) lock() *ObjectLock { return nil } // its interface for S3 clients can't

func (p *GCS) around() []Place {
	return around(p.Prefix, func(prefix string) Place {
		outer := *p
		outer.Prefix = prefix
		return &outer
	})
}

func (p *GCS) connect(ctx context.Context) (blob.Storage, error) { return p.s3().connect(ctx) }

func (p *GCS) s3() *S3 {
	endpoint := p.endpoint
	if endpoint == "" {
		endpoint = "storage.googleapis.com"
	}
	return &S3{
		Bucket: p.Bucket, Prefix: p.Prefix, Endpoint: endpoint, Region: "auto",
		AccessKeyID: p.AccessID, SecretAccessKey: p.Secret,
	}
}
