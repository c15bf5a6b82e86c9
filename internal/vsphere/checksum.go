package vsphere

import (
	"crypto/sha1" //nolint:gosec // the only checksum of servers before 6.7
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// errChecksum: what arrived is not what was sent, or nothing says that it is.
var errChecksum = errors.New("the server's checksum doesn't confirm the stream")

// A checksummer computes what a server may say about a stream. SHA-1 is computed even where SHA-256 was
// asked for: a server may grant that and still have the old one alone.
type checksummer struct {
	sha1, sha256 hash.Hash // sha256 is nil where the server has SHA-1
	size         int64
}

func newChecksummer(useSHA256 bool) *checksummer {
	c := &checksummer{sha1: sha1.New()} //nolint:gosec // see the import
	if useSHA256 {
		c.sha256 = sha256.New()
	}
	return c
}

func (c *checksummer) add(p []byte) {
	_, _ = c.sha1.Write(p) // a hash never fails
	if c.sha256 != nil {
		_, _ = c.sha256.Write(p)
	}
	c.size += int64(len(p))
}

// sums returns the checksums of what was added so far.
func (c *checksummer) sums() checksums {
	out := checksums{size: c.size, sha1: hex.EncodeToString(c.sha1.Sum(nil))}
	if c.sha256 != nil {
		out.sha256 = hex.EncodeToString(c.sha256.Sum(nil))
	}
	return out
}

// checksums are those of a whole stream, in hexadecimal.
type checksums struct {
	size         int64
	sha1, sha256 string // sha256 is empty where it wasn't computed
}

// compare checks a stream against the server's entry for it. confirmed tells whether there was a
// checksum to compare: an entry that is missing, or has none, is no error but confirms nothing.
// Error: errChecksum.
func (s checksums) compare(entry *types.HttpNfcLeaseManifestEntry) (confirmed bool, err error) {
	if entry == nil {
		return false, nil
	}
	if entry.Size != 0 && entry.Size != s.size {
		return false, fmt.Errorf("%w: %d bytes passed, the server counted %d", errChecksum, s.size, entry.Size)
	}
	theirs, ours := entry.Sha1, s.sha1
	switch kind := entry.ChecksumType; {
	case entry.Checksum == "":
	case strings.EqualFold(kind, string(types.HttpNfcLeaseManifestEntryChecksumTypeSha1)):
		theirs = entry.Checksum
	case strings.EqualFold(kind, string(types.HttpNfcLeaseManifestEntryChecksumTypeSha256)) && s.sha256 != "":
		theirs, ours = entry.Checksum, s.sha256
	}
	if theirs == "" {
		return false, nil
	}
	if !strings.EqualFold(theirs, ours) {
		return false, fmt.Errorf("%w: %s passed, the server has %s", errChecksum, ours, theirs)
	}
	return true, nil
}
