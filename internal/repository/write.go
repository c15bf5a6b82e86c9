package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A Writer makes one restore point: disks first, then Commit. What isn't committed is never listed,
// and its space comes back through maintenance.
type Writer struct {
	repository *Repository

	mu     sync.Mutex
	disks  map[string]*writtenDisk // by file name; nil while it is being written, and if that failed
	closed bool
}

type writtenDisk struct {
	id       object.ID
	capacity int64
	result   DiskResult
}

// DiskResult is what became of a disk. Numbers are in bytes.
type DiskResult struct {
	Digest      disk.Digest
	ChunkSize   int64
	ReadBytes   int64 // that the source gave
	DataBytes   int64 // in chunks that are not all zero
	StoredBytes int64 // added to the repository: compressed, without what was there already
}

var errWriterDone = errors.New("the writer was committed or closed")

// NewWriter starts a restore point. It returns ErrReadOnly or ErrFull where nothing can be written.
func (r *Repository) NewWriter(ctx context.Context) (*Writer, error) {
	if err := r.checkWritable(); err != nil {
		return nil, fmt.Errorf("write to repository %s: %w", r.path, err)
	}
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	if err := r.ensureOwner(ctx); err != nil {
		return nil, fmt.Errorf("set the owner of repository %s: %w", r.path, err)
	}
	return &Writer{repository: r, disks: map[string]*writtenDisk{}}, nil
}

// checkWritable finds out early what would otherwise fail with the first full pack.
func (r *Repository) checkWritable() error {
	f, err := os.CreateTemp(r.path, ".terraform-vm-write-*")
	if err != nil {
		return writeError(err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Close abandons what was not committed. A Writer may be closed more than once.
func (w *Writer) Close(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.disks = nil
	return nil
}

// WriteDisk stores a disk under a file name. It may be called concurrently for several disks. The
// data of a disk goes into packs of its own, whatever other disks do at the same time.
//
// Errors: those of the source and of ctx; ErrReadOnly, ErrFull.
func (w *Writer) WriteDisk(ctx context.Context, file string, src disk.Source) (DiskResult, error) {
	if err := w.reserve(file); err != nil {
		return DiskResult{}, fmt.Errorf("write disk %q: %w", file, err)
	}
	written, err := w.repository.writeDisk(ctx, src)
	if err != nil {
		return DiskResult{}, fmt.Errorf("write disk %q to repository %s: %w", file, w.repository.path, writeError(err))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return DiskResult{}, fmt.Errorf("write disk %q: %w", file, errWriterDone)
	}
	w.disks[file] = written
	return written.result, nil
}

// reserve takes a file name for a disk.
func (w *Writer) reserve(file string) error {
	if err := checkFileName(file); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errWriterDone
	}
	if d, ok := w.disks[file]; ok && d != nil {
		return errors.New("a disk was written to this file before")
	}
	w.disks[file] = nil
	return nil
}

func (r *Repository) writeDisk(ctx context.Context, src disk.Source) (_ *writtenDisk, err error) {
	capacity := src.Capacity()
	if capacity <= 0 {
		return nil, fmt.Errorf("a capacity of %d bytes", capacity)
	}
	var stored atomic.Int64
	sessionCtx, session, err := r.rep.NewWriter(ctx, repo.WriteSessionOptions{
		Purpose: "disk", OnUpload: func(n int64) { stored.Add(n) },
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		// Closing drops what was not flushed, and is needed whatever became of ctx.
		if closeErr := session.Close(context.WithoutCancel(sessionCtx)); err == nil {
			err = closeErr
		}
	}()
	p := newDiskPipeline(src, session)
	id, err := p.run(sessionCtx)
	if err != nil {
		return nil, err
	}
	if err := session.Flush(sessionCtx); err != nil {
		return nil, err
	}
	return &writtenDisk{id: id, capacity: capacity, result: DiskResult{
		Digest:      p.digest.Digest(),
		ChunkSize:   p.chunkSize,
		ReadBytes:   p.readBytes,
		DataBytes:   p.dataBytes,
		StoredBytes: stored.Load(),
	}}, nil
}

// A diskPipeline carries the data of one disk from its source to the repository: one goroutine
// assembles chunks, several hash, compress, encrypt and store them, and one writes the chunk table
// and the digest in order.
type diskPipeline struct {
	src       disk.Source
	session   repo.RepositoryWriter
	capacity  int64
	chunkSize int64
	workers   int

	// There are as many chunks as free has room for; the other channels have room for all of them.
	free    chan *chunk
	pending chan *chunk // to the workers
	ordered chan *chunk // to the table

	digest    *disk.Digester
	readBytes int64
	dataBytes int64
}

// chunk is a chunk of a disk that isn't all zero, on its way.
type chunk struct {
	offset int64
	data   []byte
	filled int // data is valid up to here
	blocks []block
	id     object.ID
	done   chan struct{} // one token when id and blocks are set
}

// block is a block of a chunk that isn't all zero.
type block struct {
	number int64
	hash   disk.BlockHash
}

func newDiskPipeline(src disk.Source, session repo.RepositoryWriter) *diskPipeline {
	capacity := src.Capacity()
	chunkSize := ChunkSize(capacity)
	chunks, workers := window()
	p := &diskPipeline{
		src: src, session: session, capacity: capacity, chunkSize: chunkSize, workers: workers,
		free:    make(chan *chunk, chunks),
		pending: make(chan *chunk, chunks),
		ordered: make(chan *chunk, chunks),
		digest:  disk.NewDigester(capacity),
	}
	for range chunks {
		p.free <- &chunk{done: make(chan struct{}, 1)}
	}
	return p
}

func (p *diskPipeline) run(ctx context.Context) (id object.ID, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.read(ctx) })
	for range p.workers {
		g.Go(func() error { return p.store(ctx) })
	}
	g.Go(func() (err error) {
		id, err = p.finish(ctx)
		return err
	})
	err = g.Wait()
	return id, err
}

// read assembles chunks from what the source yields.
func (p *diskPipeline) read(ctx context.Context) error {
	var current *chunk
	var end int64
	err := p.src.Extents(ctx, func(offset int64, data []byte) (err error) {
		if offset < end || int64(len(data)) > p.capacity-offset {
			return fmt.Errorf("source yields %d bytes at %d: behind %d or beyond the capacity of %d",
				len(data), offset, end, p.capacity)
		}
		end = offset + int64(len(data))
		p.readBytes += int64(len(data))
		current, err = p.assemble(ctx, current, offset, data)
		return err
	})
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // a source that stopped without saying so
		return err
	}
	if current != nil {
		p.send(current)
	}
	close(p.pending)
	close(p.ordered)
	return nil
}

// assemble copies data into chunks, leaving out zeros, and returns the chunk that isn't full yet.
func (p *diskPipeline) assemble(ctx context.Context, current *chunk, offset int64, data []byte) (*chunk, error) {
	for len(data) > 0 {
		start := offset - offset%p.chunkSize
		n := min(int64(len(data)), start+p.chunkSize-offset)
		piece := data[:n]
		if !disk.IsZero(piece) {
			if current != nil && current.offset != start {
				p.send(current)
				current = nil
			}
			if current == nil {
				select {
				case current = <-p.free:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				current.start(start, min(p.chunkSize, p.capacity-start))
			}
			current.write(int(offset-start), piece)
		}
		offset += n
		data = data[n:]
	}
	return current, nil
}

func (c *chunk) start(offset, length int64) {
	if int64(cap(c.data)) < length {
		c.data = make([]byte, length)
	}
	c.offset, c.data, c.filled, c.blocks = offset, c.data[:length], 0, c.blocks[:0]
}

func (c *chunk) write(at int, piece []byte) {
	clear(c.data[c.filled:at])
	c.filled = at + copy(c.data[at:], piece)
}

func (p *diskPipeline) send(c *chunk) {
	clear(c.data[c.filled:])
	p.ordered <- c
	p.pending <- c
}

// store hashes and stores chunks.
func (p *diskPipeline) store(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c, ok := <-p.pending:
			if !ok {
				return nil
			}
			c.blocks = appendBlocks(c.blocks, c.offset, c.data)
			id, err := putChunk(ctx, p.session, p.chunkSize, c.data)
			if err != nil {
				return err
			}
			c.id = id
			c.done <- struct{}{}
		}
	}
}

// appendBlocks appends the blocks of data that are not all zero. The offset is that of a block.
func appendBlocks(blocks []block, offset int64, data []byte) []block {
	for i := 0; i < len(data); i += disk.BlockSize {
		b := data[i:min(i+disk.BlockSize, len(data))]
		if !disk.IsZero(b) {
			blocks = append(blocks, block{(offset + int64(i)) / disk.BlockSize, disk.HashBlock(b)})
		}
	}
	return blocks
}

// finish writes the chunk table and the digest.
func (p *diskPipeline) finish(ctx context.Context) (object.ID, error) {
	table := newTableWriter(ctx, p.session, p.capacity, p.chunkSize)
	defer table.close()
	for {
		var c *chunk
		var ok bool
		select {
		case <-ctx.Done():
			return object.EmptyID, ctx.Err()
		case c, ok = <-p.ordered:
		}
		if !ok {
			return table.finish()
		}
		select {
		case <-ctx.Done():
			return object.EmptyID, ctx.Err()
		case <-c.done:
		}
		if err := table.add(c.offset, c.id); err != nil {
			return object.EmptyID, err
		}
		for _, b := range c.blocks {
			p.digest.Add(b.number, b.hash)
		}
		p.dataBytes += int64(len(c.data))
		p.free <- c
	}
}
