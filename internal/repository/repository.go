// Package repository keeps restore points in a Kopia repository.
//
// A restore point is an ordinary Kopia snapshot, pinned, whose root directory holds backup.json (a
// Manifest), the captured configuration, firmware variables, and one raw image per disk. Stock Kopia
// tools list, verify, restore and mount it.
package repository

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// An ID names a restore point: the ID of its Kopia snapshot manifest, 32 hexadecimal digits.
type ID string

// Config says where a repository is and how it is opened.
type Config struct {
	Path     string // a directory
	Password secret.String

	// Create allows Open to make the repository (and its directory, in a parent that exists) where
	// there is none.
	Create bool
}

// Outcomes that callers decide by. They come wrapped with the path and what is the matter.
var (
	ErrNotFound      = errors.New("restore point not found")
	ErrNoRepository  = errors.New("no repository")             // nothing at the path, or not a repository
	ErrPassword      = errors.New("wrong repository password") // or a damaged format blob, which looks the same
	ErrReadOnly      = errors.New("repository can't be written")
	ErrFull          = errors.New("no space left for the repository")
	ErrDamaged       = errors.New("repository is damaged") // names the pack or index blob
	ErrSchemaVersion = errors.New("restore point was written by a newer version")
	ErrIncomplete    = errors.New("data that the restore point re-uses is gone") // of Commit: take the backup again
)

// A DigestError says that a disk's content is not what was backed up. It wraps ErrDamaged.
type DigestError struct {
	ID        ID
	File      string
	Want, Got disk.Digest
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("restore point %s: %s has digest %s, but %s was backed up", e.ID, e.File, e.Got, e.Want)
}

func (e *DigestError) Unwrap() error { return ErrDamaged }

// A RestorePoint is an entry of the list of restore points: what is known without opening it.
type RestorePoint struct {
	ID           ID
	CreatedAt    time.Time
	VMName       string
	VMPath       string
	BIOSUUID     string
	InstanceUUID string
	Consistency  string
	Description  string
	SizeBytes    int64
	Tags         map[string]string
}

// A Filter selects restore points; empty fields select all.
type Filter struct {
	VM             string // BIOS UUID, instance UUID, inventory path or name
	Before, After  time.Time
	Tags           map[string]string // all must match
	MinConsistency string            // "crash", "filesystem" or "application"
}

// The functions of this package, to be moved to their files:
//
//	func Open(ctx context.Context, c Config) (*Repository, error)
//	func (r *Repository) ID() string                                            unique ID, hexadecimal
//	func (r *Repository) List(ctx context.Context, f Filter) ([]RestorePoint, error)   newest first
//	func (r *Repository) Get(ctx context.Context, id ID) (*Manifest, error)
//	func (r *Repository) ReadFile(ctx context.Context, id ID, name string) ([]byte, error)
//	func (r *Repository) OpenDisk(ctx context.Context, id ID, d Disk) (*DiskReader, error)  a disk.Source; ends with *DigestError if content differs
//	func (r *Repository) Delete(ctx context.Context, id ID) error               gone is no error
//	func (r *Repository) Close(ctx context.Context) error
//
//	func (r *Repository) NewWriter(ctx context.Context) (*Writer, error)
//	func (w *Writer) WriteDisk(ctx context.Context, file string, src disk.Source) (DiskResult, error)  concurrently for several disks
//	func (w *Writer) Commit(ctx context.Context, m *Manifest, files map[string][]byte) (ID, error)     manifest last; all or nothing
//	func (w *Writer) Close(ctx context.Context) error                            abandons what was not committed
var _ = context.Background
