package repository

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A DiskReader is a disk of a restore point, as a disk.Source. Several passes may be made over it,
// also at once.
type DiskReader struct {
	repository *Repository
	id         ID
	disk       Disk
	object     object.ID
}

var _ disk.Source = (*DiskReader)(nil)

// Capacity implements disk.Source.
func (d *DiskReader) Capacity() int64 { return d.disk.Capacity }

// Extents implements disk.Source. It yields chunks that are not all zero. After the last one it
// compares the digest, so that a nil error also means: this is what was backed up.
//
// Errors: *DigestError; ErrDamaged, naming the pack.
func (d *DiskReader) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	return d.read(ctx, nil, yield)
}

// read is Extents. With a check, damaged chunks don't end it but are told to the check, and so are all blocks.
func (d *DiskReader) read(
	ctx context.Context, check *diskCheck, yield func(offset int64, data []byte) error,
) error {
	ctx, unbind := d.repository.bind(ctx)
	defer unbind()
	chunks := window()
	p := &readPipeline{
		reader:  d,
		check:   check,
		pending: make(chan *chunkRun, chunks),
		ordered: make(chan *chunkRun, chunks),
		zeros:   map[object.ID]struct{}{},
		digest:  disk.NewDigester(d.disk.Capacity),
	}
	g, groupCtx := errgroup.WithContext(ctx)
	readCtx, cancel := context.WithCancel(groupCtx)
	defer cancel()
	g.Go(func() error { return p.schedule(readCtx) })
	for range workers() {
		g.Go(func() error { return p.load(readCtx) })
	}
	yieldErr := p.deliver(readCtx, yield)
	if yieldErr != nil { // else the others are at their end too, and must not take it for a failure
		cancel()
	}
	err := g.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case yieldErr != nil && !errors.Is(yieldErr, errStopped):
		return yieldErr
	case err != nil:
		return fmt.Errorf("read disk %s of restore point %s in repository %s: %w",
			d.disk.File, d.id, d.repository.path, err)
	}
	if got := p.digest.Digest(); got != d.disk.Digest {
		return &DigestError{ID: d.id, File: d.disk.File, Want: d.disk.Digest, Got: got}
	}
	return nil
}

// errStopped says that the reason is with the other goroutines.
var errStopped = errors.New("stopped")

// A readPipeline carries a disk out of the repository: one goroutine reads the chunk table, several
// read, decrypt, decompress and hash chunks ahead, and the caller's takes them in order.
type readPipeline struct {
	reader  *DiskReader
	check   *diskCheck     // nil: none
	pending chan *chunkRun // to the loaders
	ordered chan *chunkRun // to the caller; its room is what bounds reading ahead
	digest  *disk.Digester

	mu    sync.Mutex
	zeros map[object.ID]struct{} // known to be all zero: there are two at most
}

// chunkRun is a number of consecutive chunks with the same content.
type chunkRun struct {
	offset int64
	length int64 // of one chunk
	count  int64
	id     object.ID

	data   []byte // nil: all zero
	blocks []block
	err    error         // why it can't be read, where that doesn't end the pass
	done   chan struct{} // closed when data, blocks and err are set
}

func (p *readPipeline) isKnownZero(id object.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.zeros[id]
	return ok
}

// schedule sends the runs of chunks that have to be read to the loaders and to the caller.
func (p *readPipeline) schedule(ctx context.Context) error {
	d := p.reader
	var run *chunkRun
	send := func() error {
		if run == nil || p.isKnownZero(run.id) {
			return nil
		}
		for _, to := range []chan *chunkRun{p.ordered, p.pending} {
			select {
			case to <- run:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	err := eachChunk(ctx, d.repository.rep, d.object, d.disk.Capacity, func(e object.IndirectObjectEntry) error {
		if run != nil && run.id == e.Object && run.length == e.Length {
			run.count++
			return nil
		}
		if err := send(); err != nil {
			return err
		}
		run = &chunkRun{offset: e.Start, length: e.Length, count: 1, id: e.Object, done: make(chan struct{})}
		return nil
	})
	if err != nil {
		return readError(err)
	}
	if err := send(); err != nil {
		return err
	}
	close(p.pending)
	close(p.ordered)
	return nil
}

// load reads chunks.
func (p *readPipeline) load(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case run, ok := <-p.pending:
			if !ok {
				return nil
			}
			if err := p.loadRun(ctx, run); err != nil {
				if p.check == nil || ctx.Err() != nil {
					return err
				}
				run.err = err
			}
			close(run.done)
		}
	}
}

func (p *readPipeline) loadRun(ctx context.Context, run *chunkRun) error {
	leave, err := p.reader.repository.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	data, err := readChunk(ctx, p.reader.repository.rep,
		object.IndirectObjectEntry{Start: run.offset, Length: run.length, Object: run.id})
	if err != nil {
		return err
	}
	if disk.IsZero(data) {
		p.mu.Lock()
		p.zeros[run.id] = struct{}{}
		p.mu.Unlock()
		return nil
	}
	if run.offset%disk.BlockSize != 0 || (run.count > 1 && run.length%disk.BlockSize != 0) {
		return fmt.Errorf("%w: chunk %s at %d doesn't begin with a block", ErrDamaged, run.id, run.offset)
	}
	run.data, run.blocks = data, appendBlocks(nil, run.offset, data)
	return nil
}

// deliver gives the caller the chunks in order.
func (p *readPipeline) deliver(ctx context.Context, yield func(int64, []byte) error) error {
	for {
		var run *chunkRun
		var ok bool
		select {
		case <-ctx.Done():
			return errStopped
		case run, ok = <-p.ordered:
		}
		if !ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errStopped
		case <-run.done:
		}
		if run.err != nil {
			if err := p.check.chunk(run, run.err); err != nil {
				return err
			}
			continue
		}
		for i := range run.count {
			if run.data == nil || ctx.Err() != nil {
				break
			}
			if err := yield(run.offset+i*run.length, run.data); err != nil {
				return err
			}
			if err := p.enter(run, i); err != nil {
				return err
			}
		}
	}
}

// enter enters the blocks of the nth chunk of a run into the digest.
func (p *readPipeline) enter(run *chunkRun, n int64) error {
	for _, b := range run.blocks {
		number := b.number + n*run.length/disk.BlockSize
		p.digest.Add(number, b.hash)
		if p.check == nil {
			continue
		}
		if err := p.check.block(number, b.hash); err != nil {
			return err
		}
	}
	return nil
}
