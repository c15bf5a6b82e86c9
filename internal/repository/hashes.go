package repository

import (
	"context"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// Beside each disk there is a file with the hashes of its blocks, from which the digest of the disk is made
// again when only a part of it was read. The hash of block n is at 32*n; that of a block of zeros is zero.
// The file is stored like a disk: in chunks at fixed places, so that those which didn't change are stored
// once, and holes cost nothing. It is never held as a whole: that of a full disk of 16 TiB has 512 MiB.
const (
	hashesSuffix = ".hashes"
	hashSize     = int64(len(disk.BlockHash{}))

	// hashChunk is the size in bytes of the chunks of such a file. Each is about 4 GiB of a disk.
	hashChunk     = 128 << 10
	hashesInChunk = hashChunk / hashSize
)

// hashesLength is the length in bytes of the file for a disk of the given capacity.
func hashesLength(capacity int64) int64 {
	return ((capacity-1)/disk.BlockSize + 1) * hashSize
}

// A hashWriter writes the hashes of a disk's blocks in ascending order.
type hashWriter struct {
	table  *tableWriter
	chunk  []byte
	number int64 // of the chunk
	filled bool
}

func newHashWriter(ctx context.Context, session repo.RepositoryWriter, capacity int64) *hashWriter {
	return &hashWriter{table: newTableWriter(ctx, session, hashesLength(capacity), hashChunk), chunk: make([]byte, hashChunk)}
}

// add enters the hash of the next block that is not all zero.
func (h *hashWriter) add(block int64, hash disk.BlockHash) error {
	number, slot := block/hashesInChunk, block%hashesInChunk
	if number != h.number {
		if err := h.flush(); err != nil {
			return err
		}
		h.number = number
	}
	h.filled = true
	copy(h.chunk[slot*hashSize:], hash[:])
	return nil
}

func (h *hashWriter) flush() error {
	if !h.filled {
		return nil
	}
	offset := h.number * hashChunk
	id, err := h.table.store(h.chunk[:h.table.length(offset)])
	if err != nil {
		return err
	}
	clear(h.chunk)
	h.filled = false
	return h.table.add(offset, id)
}

func (h *hashWriter) finish() (object.ID, error) {
	if err := h.flush(); err != nil {
		return object.EmptyID, err
	}
	return h.table.finish()
}

// A hashReader reads the hashes of a disk's blocks in ascending order.
type hashReader struct {
	ctx    context.Context // of the reader's one pass
	rep    repo.DirectRepository
	chunks *chunkList
	number int64 // of the next chunk
	chunk  []byte
	id     object.ID // of chunk
}

func openHashes(ctx context.Context, rep repo.DirectRepository, id object.ID, capacity int64) (*hashReader, error) {
	chunks, err := openChunks(ctx, rep, id, hashesLength(capacity))
	if err != nil {
		return nil, err
	}
	return &hashReader{ctx: ctx, rep: rep, chunks: chunks}, nil
}

func (h *hashReader) close() { h.chunks.close() }

// block is the hash of a block; it is zero for a block of zeros.
func (h *hashReader) block(n int64) (hash disk.BlockHash, err error) {
	for h.number <= n/hashesInChunk {
		if err := h.load(); err != nil {
			return hash, err
		}
	}
	copy(hash[:], h.chunk[n%hashesInChunk*hashSize:])
	return hash, nil
}

// load reads the next chunk.
func (h *hashReader) load() error {
	e, err := h.chunks.chunk()
	if err != nil {
		return err
	}
	if e.Start != h.number*hashChunk || e.Length != min(hashChunk, h.chunks.capacity-e.Start) {
		return fmt.Errorf("%w: block hashes %d+%d", errTable, e.Start, e.Length)
	}
	h.number++
	if e.Object == h.id && int64(len(h.chunk)) == e.Length { // zeros mostly
		return nil
	}
	h.chunk, err = readChunk(h.ctx, h.rep, e)
	h.id = e.Object
	return err
}
