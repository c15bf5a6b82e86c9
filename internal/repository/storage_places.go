package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/azure"
	"github.com/kopia/kopia/repo/blob/b2"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// Azure is a repository in a container of Azure Blob Storage. Of the credentials, the first that is complete is
// used: the shared access signature, the account's key, a service principal with its secret, or with a token.
type Azure struct {
	Account   string
	Container string
	Prefix    string // as S3.Prefix

	SASToken secret.String
	Key      secret.String

	TenantID, ClientID string // of a service principal
	ClientSecret       secret.String
	FederatedTokenFile string

	// Endpoint is the domain of the accounts, of which a scheme may be http. Empty: Azure's public cloud.
	Endpoint string

	Lock *ObjectLock
}

// HasCredentials reports whether there are some of any kind.
func (p *Azure) HasCredentials() bool {
	principal := p.TenantID != "" && p.ClientID != "" && (p.ClientSecret.IsSet() || p.FederatedTokenFile != "")
	return p.SASToken.IsSet() || p.Key.IsSet() || principal
}

// String names the place without its secrets.
func (p *Azure) String() string { return "azure://" + p.Account + "/" + p.Container + "/" + p.Prefix }

func (p *Azure) lock() *ObjectLock { return p.Lock }

func (p *Azure) around() []Place {
	return around(p.Prefix, func(prefix string) Place {
		outer := *p
		outer.Prefix = prefix
		return &outer
	})
}

func (p *Azure) connect(ctx context.Context) (blob.Storage, error) {
	o, err := p.options()
	if err != nil {
		return nil, err
	}
	return azure.New(ctx, o, false)
}

func (p *Azure) options() (*azure.Options, error) {
	domain, plain, err := splitEndpoint(p.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", p.Endpoint, err)
	}
	if err := checkPrefix(p.Prefix); err != nil {
		return nil, err
	}
	if !p.HasCredentials() {
		return nil, fmt.Errorf("%w: there are no credentials", ErrRefused)
	}
	return &azure.Options{
		Container: p.Container, Prefix: p.Prefix, StorageAccount: p.Account,
		SASToken: strings.TrimPrefix(p.SASToken.Reveal(), "?"), StorageKey: p.Key.Reveal(),
		TenantID: p.TenantID, ClientID: p.ClientID, ClientSecret: p.ClientSecret.Reveal(),
		AzureFederatedTokenFile: p.FederatedTokenFile,
		StorageDomain:           domain, DoNotUseTLS: plain,
	}, nil
}

// B2 is a repository in a bucket of Backblaze B2, by its own interface.
type B2 struct {
	Bucket string
	Prefix string // as S3.Prefix
	KeyID  string
	Key    secret.String
}

// String names the place without its secrets.
func (p *B2) String() string { return "b2://" + p.Bucket + "/" + p.Prefix }

func (p *B2) lock() *ObjectLock { return nil } // Kopia can't there

func (p *B2) around() []Place {
	return around(p.Prefix, func(prefix string) Place {
		outer := *p
		outer.Prefix = prefix
		return &outer
	})
}

func (p *B2) connect(ctx context.Context) (blob.Storage, error) {
	if err := checkPrefix(p.Prefix); err != nil {
		return nil, err
	}
	base, err := b2.New(ctx, p.options(), false)
	if err != nil {
		return nil, err
	}
	return b2Storage{base}, nil
}

// b2Storage is Kopia's storage (v0.23.1), which says of every blob that it was deleted, whatever the service says.
type b2Storage struct{ blob.Storage }

// DeleteBlob implements blob.Storage.
func (s b2Storage) DeleteBlob(ctx context.Context, id blob.ID) error {
	if err := s.Storage.DeleteBlob(ctx, id); err != nil {
		return err
	}
	_, err := s.GetMetadata(ctx, id)
	switch {
	case errors.Is(err, blob.ErrBlobNotFound):
		return nil
	case err == nil:
		return fmt.Errorf("%w: the service doesn't delete it", ErrUnreachable)
	}
	return err
}

func (p *B2) options() *b2.Options {
	return &b2.Options{BucketName: p.Bucket, Prefix: p.Prefix, KeyID: p.KeyID, Key: p.Key.Reveal()}
}

// SFTP is a repository in a directory of an SSH server.
type SFTP struct {
	Host string
	Port int // zero: 22
	User string
	Path string // of the directory on the server, from its root

	Password secret.String // of the user; unset: the key is used
	Key      secret.String // a private key in PEM form, without a passphrase; unset: that of KeyFile
	KeyFile  string

	KnownHosts     string // lines of a known_hosts file; empty: those of KnownHostsFile
	KnownHostsFile string // empty: the user's own
}

// HasCredentials reports whether there are some of any kind.
func (p *SFTP) HasCredentials() bool { return p.Password.IsSet() || p.Key.IsSet() || p.KeyFile != "" }

// String names the place without its secrets.
func (p *SFTP) String() string { return "sftp://" + p.User + "@" + p.Host + path.Join("/", p.Path) }

func (p *SFTP) lock() *ObjectLock { return nil }

// around: what is below another repository's directory isn't taken for anything of that one.
func (p *SFTP) around() []Place { return nil }

func (p *SFTP) connect(ctx context.Context) (blob.Storage, error) {
	if !path.IsAbs(p.Path) {
		return nil, fmt.Errorf("%w: the path %q is not an absolute one", ErrNoRepository, p.Path)
	}
	if !p.HasCredentials() {
		return nil, fmt.Errorf("%w: there is neither a password nor a key", ErrRefused)
	}
	c, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	files := newSFTPFiles(p, c)
	info, err := files.stat(ctx, p.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // it is made with the first blob
	case err == nil && !info.IsDir():
		err = fmt.Errorf("%w: it is not a directory", ErrNoRepository)
		fallthrough
	case err != nil:
		return nil, errors.Join(err, files.close())
	}
	return newFileStorage(files, path.Clean(p.Path), p.String()), nil
}

// defaultTransport is what HTTP goes through unless a place has something else of its own.
func defaultTransport() *http.Transport {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return t.Clone()
	}
	return new(http.Transport)
}
