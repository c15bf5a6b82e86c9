package repository

import (
	"context"
	"fmt"

	"github.com/kopia/kopia/repo/object"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A Base is what is known of a disk from an earlier restore point.
type Base struct {
	ID   ID   // of the restore point
	Disk Disk // of its manifest

	// Areas are what the source gives, with the granularity of the disk's chunks. Outside of them the disk
	// is as in the base.
	Areas *disk.Areas

	// Sample are those of the areas in which nothing changed. What the source gives there is compared with
	// the base. Nil: none.
	Sample *disk.Areas
}

// IsBaseFor reports whether a disk of a restore point can be the base of one of a capacity in bytes.
func (d *Disk) IsBaseFor(capacity int64) bool {
	return d.Hashes != "" && d.Capacity == capacity && d.ChunkSize == ChunkSize(capacity)
}

// A TrackingError says that a part of a disk which should not have changed since its base did. It wraps
// ErrTrackingWrong.
type TrackingError struct {
	Base   ID
	File   string // of the base
	Offset int64  // of the block of disk.BlockSize bytes that differs
}

func (e *TrackingError) Error() string {
	return fmt.Sprintf("the block at %d is not as in %s of restore point %s: %v", e.Offset, e.File, e.Base, ErrTrackingWrong)
}

func (e *TrackingError) Unwrap() error { return ErrTrackingWrong }

// openBase is a base in one pass over its chunks.
type openBase struct {
	*Base
	chunks *chunkList
	hashes *hashReader
	digest *disk.Digester   // of the base, by its hashes
	found  []disk.BlockHash // scratch of next
	kept   []block          // scratch of blocks
}

func (r *Repository) openBase(ctx context.Context, b *Base, capacity int64) (_ *openBase, err error) {
	granularity := ChunkSize(capacity)
	for _, a := range []*disk.Areas{b.Areas, b.Sample} {
		if a != nil && (a.Capacity() != capacity || a.Granularity() != granularity) {
			return nil, fmt.Errorf("areas of %d bytes in units of %d for a disk of %d in chunks of %d",
				a.Capacity(), a.Granularity(), capacity, granularity)
		}
	}
	if b.Areas == nil || !b.Disk.IsBaseFor(capacity) {
		return nil, fmt.Errorf("%s of restore point %s can't be the base", b.Disk.File, b.ID)
	}
	open := &openBase{Base: b, digest: disk.NewDigester(capacity)}
	defer func() {
		if err != nil {
			open.close()
			err = open.failed(err)
		}
	}()
	data, err := r.entry(ctx, b.ID, b.Disk.File)
	if err != nil {
		return nil, err
	}
	hashes, err := r.entry(ctx, b.ID, b.Disk.Hashes)
	if err != nil {
		return nil, err
	}
	if data.FileSize != capacity || hashes.FileSize != hashesLength(capacity) {
		return nil, fmt.Errorf("%w: %s has %d bytes, %s %d", ErrDamaged,
			b.Disk.File, data.FileSize, b.Disk.Hashes, hashes.FileSize)
	}
	if open.chunks, err = openChunks(ctx, r.rep, data.ObjectID, capacity); err != nil {
		return nil, err
	}
	if open.hashes, err = openHashes(ctx, r.rep, hashes.ObjectID, capacity); err != nil {
		return nil, err
	}
	return open, nil
}

func (b *openBase) close() {
	if b.chunks != nil {
		b.chunks.close()
	}
	if b.hashes != nil {
		b.hashes.close()
	}
}

// failed says that the base can't be used. Whatever is the matter with it, the whole disk can be written.
func (b *openBase) failed(err error) error {
	if err == nil || isContextError(err) {
		return err
	}
	return fmt.Errorf("%w: restore point %s: %w", ErrIncomplete, b.ID, readError(err))
}

func (b *openBase) sampled(offset int64) bool { return b.Sample != nil && b.Sample.Contains(offset) }

// next is the base's next chunk, with the hashes of its blocks: zero for a block of zeros.
func (b *openBase) next() (e object.IndirectObjectEntry, hashes []disk.BlockHash, err error) {
	if e, err = b.chunks.chunk(); err != nil {
		return e, nil, b.failed(err)
	}
	if e.Start%b.Disk.ChunkSize != 0 || e.Length != min(b.Disk.ChunkSize, b.Disk.Capacity-e.Start) {
		return e, nil, b.failed(fmt.Errorf("%w: entry %d+%d", errTable, e.Start, e.Length))
	}
	b.found = b.found[:0]
	for offset := e.Start; offset < e.Start+e.Length; offset += disk.BlockSize {
		hash, err := b.hashes.block(offset / disk.BlockSize)
		if err != nil {
			return e, nil, b.failed(err)
		}
		b.found = append(b.found, hash)
		if hash != (disk.BlockHash{}) {
			b.digest.Add(offset/disk.BlockSize, hash)
		}
	}
	return e, b.found, nil
}

// finish makes sure, after the last chunk, that the hashes are those of the disk that was backed up.
func (b *openBase) finish() error {
	if got := b.digest.Digest(); got != b.Disk.Digest {
		return b.failed(fmt.Errorf("%s: %w", b.Disk.Hashes,
			&DigestError{ID: b.ID, File: b.Disk.File, Want: b.Disk.Digest, Got: got}))
	}
	return nil
}

// compare compares the blocks of a chunk that were read with those of the base.
func (b *openBase) compare(offset int64, blocks []block, hashes []disk.BlockHash) error {
	for i, want := range hashes {
		number := offset/disk.BlockSize + int64(i)
		var got disk.BlockHash
		if len(blocks) > 0 && blocks[0].number == number {
			got, blocks = blocks[0].hash, blocks[1:]
		}
		if got != want {
			return &TrackingError{Base: b.ID, File: b.Disk.File, Offset: number * disk.BlockSize}
		}
	}
	return nil
}

// check makes sure that a chunk of the base is the one that its hashes say, given the ID that a chunk of that
// content has.
func (b *openBase) check(e object.IndirectObjectEntry, want object.ID) error {
	if e.Object == want {
		return nil
	}
	return b.failed(fmt.Errorf("%w: chunk %s at %d of %s should be %s by its hashes",
		ErrDamaged, e.Object, e.Start, b.Disk.File, want))
}

// blocks are the blocks of a chunk of the base that are not all zero.
func (b *openBase) blocks(offset int64, hashes []disk.BlockHash) []block {
	b.kept = b.kept[:0]
	for i, hash := range hashes {
		if hash != (disk.BlockHash{}) {
			b.kept = append(b.kept, block{offset/disk.BlockSize + int64(i), hash})
		}
	}
	return b.kept
}
