package repository

import (
	"log/slog"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// Config says where a repository is and how it is opened.
type Config struct {
	Path     string // a directory; empty: Place
	Place    Place
	Password secret.String

	// Create allows Open to make the repository (and its directory, in a parent that exists) where
	// there is none.
	Create bool

	// Encryption is how a repository is encrypted that is made. One that is there must be encrypted in this way.
	// Empty: EncryptionAES where it is made.
	Encryption Encryption

	// Compression is how disks are compressed. Empty: CompressionAuto. It may be another each time.
	Compression Compression

	Limits Limits
	Cache  Cache // of a repository in a Place

	// MaxOutage is for how long each operation on a Place that can't be reached is tried again. Zero: five minutes.
	// Negative: clients of the storage try again for seconds, as they all do.
	MaxOutage time.Duration

	Log *slog.Logger // tells of outages; nil: nobody

	now func() time.Time // Kopia's clock; nil: the system's
}

// Limits are how much is written to a repository and read from it, in bytes per second, of a minute each. Zero: no
// limit.
type Limits struct {
	Upload, Download int64
}

// Encryption names a way to encrypt a repository.
type Encryption string

const (
	// EncryptionAES is AES-256 in Galois/counter mode. Most processors have instructions for it.
	EncryptionAES Encryption = "aes256-gcm"
	// EncryptionChaCha is ChaCha20 with Poly1305, which takes less time where processors have none.
	EncryptionChaCha Encryption = "chacha20-poly1305"
)

// encryptions are Kopia's names of them.
var encryptions = map[Encryption]string{
	"":               "AES256-GCM-HMAC-SHA256",
	EncryptionAES:    "AES256-GCM-HMAC-SHA256",
	EncryptionChaCha: "CHACHA20-POLY1305-HMAC-SHA256",
}

// Compression names a way to compress disks.
type Compression string

const (
	// CompressionAuto takes for each chunk CompressionS2 while processors are what a backup waits for, or else
	// CompressionZstd. It is the default.
	CompressionAuto Compression = "auto"
	// CompressionZstd stores about a seventh less than CompressionS2.
	CompressionZstd Compression = "zstd-fastest"
	// CompressionS2 takes the least time.
	CompressionS2 Compression = "s2-default"
	// CompressionNone is for guests whose data is compressed or encrypted already.
	CompressionNone Compression = "none"
)
