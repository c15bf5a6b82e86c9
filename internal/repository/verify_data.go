package repository

import (
	"context"
	"errors"
	"fmt"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// verifyData reads everything. The manifest is read already.
func (v *verifier) verifyData(ctx context.Context) error {
	for _, f := range v.inOrder() {
		var err error
		switch {
		case f.name == manifestFile:
			continue
		case f.disk == nil:
			if err = readBack(ctx, v.rep, f.ObjectID); err != nil {
				err = v.damaged(ctx, f.part(0, 0, err))
			}
		case f.name == f.disk.File:
			err = v.verifyDisk(ctx, f)
		default:
			err = v.verifyHashes(ctx, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verifyHashes makes sure that the hashes of a disk's blocks are those that its digest was made of. Without them
// it can't be the base of another backup.
func (v *verifier) verifyHashes(ctx context.Context, f verifiedFile) error {
	err := func() error {
		hashes, err := openHashes(ctx, v.rep, f.ObjectID, f.disk.Capacity)
		if err != nil {
			return err
		}
		defer hashes.close()
		digest := disk.NewDigester(f.disk.Capacity)
		for n := range blockCount(f.disk.Capacity) {
			hash, err := hashes.block(n)
			if err != nil {
				return err
			}
			if hash != (disk.BlockHash{}) {
				digest.Add(n, hash)
			}
		}
		if got := digest.Digest(); got != f.disk.Digest {
			return &DigestError{ID: v.id, File: f.name, Want: f.disk.Digest, Got: got}
		}
		return nil
	}()
	if err == nil {
		return nil
	}
	delete(v.entries, f.name) // the disk can't be compared with them
	return v.damaged(ctx, f.part(0, 0, err))
}

// blockCount is how many blocks a disk has.
func blockCount(capacity int64) int64 { return (capacity-1)/disk.BlockSize + 1 }

// verifyDisk reads a disk and compares it with its digest and, to tell where it differs, with the hashes of its
// blocks. What can't be read of it doesn't end that.
func (v *verifier) verifyDisk(ctx context.Context, f verifiedFile) error {
	reader := &DiskReader{repository: v.Repository, id: v.id, disk: *f.disk, object: f.ObjectID}
	c := &diskCheck{capacity: f.disk.Capacity, damaged: func(offset, length int64, err error) error {
		return v.damaged(ctx, f.part(offset, length, err))
	}}
	if e, ok := v.entries[f.disk.Hashes]; ok && f.disk.Hashes != "" {
		hashes, err := openHashes(ctx, v.rep, e.ObjectID, f.disk.Capacity)
		if err != nil {
			return readError(err) // it was read a moment ago
		}
		defer hashes.close()
		c.hashes = hashes
	}
	before := len(v.result.Damage) + v.result.More
	err := reader.read(ctx, c, func(_ int64, data []byte) error {
		v.result.ReadBytes += int64(len(data))
		v.advance(int64(len(data)))
		return nil
	})
	if err == nil {
		err = c.finish()
	}
	var digest *DigestError
	if errors.As(err, &digest) && len(v.result.Damage)+v.result.More > before {
		return nil // it is known where
	}
	if err != nil {
		return v.damaged(ctx, f.part(0, 0, err))
	}
	return nil
}

// A diskCheck compares the blocks of a disk with their hashes as they are read.
type diskCheck struct {
	capacity int64
	hashes   *hashReader // nil: there are none
	next     int64       // block
	damaged  func(offset, length int64, err error) error
}

// chunk is told of chunks that can't be read.
func (c *diskCheck) chunk(run *chunkRun, err error) error {
	if err = readError(err); !errors.Is(err, ErrDamaged) {
		return err
	}
	if err := c.zeros(run.offset / disk.BlockSize); err != nil {
		return err
	}
	length := run.length * run.count
	c.next = (run.offset + length + disk.BlockSize - 1) / disk.BlockSize
	return c.damaged(run.offset, length, err)
}

// block is told of blocks that are not all zero.
func (c *diskCheck) block(n int64, hash disk.BlockHash) error {
	if err := c.zeros(n); err != nil {
		return err
	}
	return c.compare(hash)
}

// zeros is told that the blocks up to another are all zero.
func (c *diskCheck) zeros(end int64) error {
	for c.next < end {
		if err := c.compare(disk.BlockHash{}); err != nil {
			return err
		}
	}
	return nil
}

func (c *diskCheck) compare(got disk.BlockHash) error {
	n := c.next
	c.next++
	if c.hashes == nil {
		return nil
	}
	want, err := c.hashes.block(n)
	if err != nil || got == want {
		return err
	}
	offset := n * disk.BlockSize
	return c.damaged(offset, min(disk.BlockSize, c.capacity-offset),
		fmt.Errorf("%w: it is not what was backed up", errContent))
}

// finish is told that the pass over the disk is at its end.
func (c *diskCheck) finish() error { return c.zeros(blockCount(c.capacity)) }
