package repository

import (
	"context"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A diskOutput writes what a disk's chunks add up to: the chunk table, the hashes of the blocks and their
// digest.
type diskOutput struct {
	ctx    context.Context // of the writer's one run
	table  *tableWriter
	hashes *hashWriter
	digest *disk.Digester
	base   *openBase // nil: what isn't added is zero

	written writtenDisk
}

func newDiskOutput(
	ctx context.Context, session repo.RepositoryWriter, capacity, chunkSize int64, base *openBase,
) *diskOutput {
	return &diskOutput{
		ctx:     ctx,
		table:   newTableWriter(ctx, session, capacity, chunkSize),
		hashes:  newHashWriter(ctx, session, capacity),
		digest:  disk.NewDigester(capacity),
		base:    base,
		written: writtenDisk{capacity: capacity},
	}
}

// add takes the next chunk that the source gave and that isn't all zero.
func (o *diskOutput) add(c *chunk) error {
	if err := o.fill(c.offset); err != nil {
		return err
	}
	if o.base != nil {
		return o.merge(c)
	}
	if err := o.table.put(c.id); err != nil {
		return err
	}
	return o.blocks(c.blocks, c.length)
}

// fill enters what the source left out.
func (o *diskOutput) fill(end int64) error {
	if o.base == nil {
		return o.table.addZeros(end)
	}
	for n := 0; o.table.next < end; n++ {
		if n%4096 == 0 && o.ctx.Err() != nil {
			return o.ctx.Err()
		}
		if err := o.merge(nil); err != nil {
			return err
		}
	}
	return nil
}

// merge enters the next chunk: c, or else the base's, or else zeros where the source would have given it.
func (o *diskOutput) merge(c *chunk) error {
	e, hashes, err := o.base.next()
	if err != nil {
		return err
	}
	var blocks []block
	if c != nil {
		blocks = c.blocks
	}
	switch {
	case o.base.sampled(e.Start):
		err = o.verify(c, e, blocks, hashes)
	case c != nil:
		e.Object = c.id
	case o.base.Areas.Contains(e.Start):
		e.Object, err = o.table.zero(e.Length)
	default:
		if blocks = o.base.blocks(e.Start, hashes); len(blocks) == 0 {
			err = o.verifyZero(e)
		}
	}
	if err != nil {
		return err
	}
	if err := o.table.put(e.Object); err != nil {
		return err
	}
	return o.blocks(blocks, e.Length)
}

// verify compares a chunk that was read, which is nil if it is all zero, with that of the base.
func (o *diskOutput) verify(c *chunk, e object.IndirectObjectEntry, blocks []block, hashes []disk.BlockHash) error {
	if err := o.base.compare(e.Start, blocks, hashes); err != nil {
		return err
	}
	if c == nil {
		return o.verifyZero(e)
	}
	return o.base.check(e, c.id)
}

// verifyZero makes sure that a chunk of the base is zero whose hashes say so.
func (o *diskOutput) verifyZero(e object.IndirectObjectEntry) error {
	zero, err := o.table.zero(e.Length)
	if err != nil {
		return err
	}
	return o.base.check(e, zero)
}

// blocks enters the hashes of a chunk's blocks that are not all zero.
func (o *diskOutput) blocks(blocks []block, length int64) error {
	if len(blocks) > 0 {
		o.written.result.DataBytes += length
	}
	for _, b := range blocks {
		o.digest.Add(b.number, b.hash)
		if err := o.hashes.add(b.number, b.hash); err != nil {
			return err
		}
	}
	return nil
}

func (o *diskOutput) finish() (err error) {
	if err = o.fill(o.written.capacity); err != nil {
		return err
	}
	if o.base != nil {
		if err := o.base.finish(); err != nil {
			return err
		}
	}
	if o.written.id, err = o.table.finish(); err != nil {
		return err
	}
	if o.written.hashes, err = o.hashes.finish(); err != nil {
		return err
	}
	o.written.result.Digest = o.digest.Digest()
	return nil
}

func (o *diskOutput) close() {
	o.table.close()
	o.hashes.table.close()
}
