package repository

import (
	"context"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A diskPipeline carries the data of one disk from its source to the repository: one goroutine
// assembles chunks, several hash, compress, encrypt and store them, and one writes the chunk table, the
// hashes and the digest in order.
type diskPipeline struct {
	repository *Repository
	src        disk.Source
	session    repo.RepositoryWriter
	base       *openBase // nil: the source gives the whole disk
	compress   *compressionChoice
	capacity   int64
	chunkSize  int64

	// There are as many chunks as free has room for; pending and ordered have room for all of them. There are fewer
	// buffers for data: a chunk that is stored waits without its data for those before it, of which one may have
	// to wait for a pack to be uploaded.
	free    chan *chunk
	buffers chan []byte
	pending chan *chunk // to the workers
	ordered chan *chunk // to the table

	readBytes int64
	out       *diskOutput
}

// chunk is a chunk of a disk that isn't all zero, on its way.
type chunk struct {
	offset int64
	length int64
	data   []byte // nil: it is stored
	filled int    // data is valid up to here
	blocks []block
	id     object.ID
	done   chan struct{} // one token when id and blocks are set
}

// block is a block of a chunk that isn't all zero.
type block struct {
	number int64
	hash   disk.BlockHash
}

func newDiskPipeline(
	r *Repository, src disk.Source, session repo.RepositoryWriter, base *openBase,
) *diskPipeline {
	capacity := src.Capacity()
	chunkSize := ChunkSize(capacity)
	buffers := window() + r.uploads()
	chunks := buffers + r.uploads()*packChunks
	p := &diskPipeline{
		repository: r, src: src, session: session, base: base, capacity: capacity, chunkSize: chunkSize,
		compress: newCompressionChoice(r.compression, r.uploads(), r.idle.share),
		free:     make(chan *chunk, chunks),
		buffers:  make(chan []byte, buffers),
		pending:  make(chan *chunk, chunks),
		ordered:  make(chan *chunk, chunks),
	}
	for range chunks {
		p.free <- &chunk{done: make(chan struct{}, 1)}
	}
	for range buffers {
		p.buffers <- nil // it is made when it is needed
	}
	return p
}

func (p *diskPipeline) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	p.out = newDiskOutput(ctx, p.session, p.capacity, p.chunkSize, p.base)
	defer p.out.close()
	g.Go(func() error { return p.read(ctx) })
	for range workers() + p.repository.uploads() {
		g.Go(func() error { return p.store(ctx) })
	}
	g.Go(func() error { return p.finish(ctx) })
	return g.Wait()
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
		if p.base != nil && !p.base.Areas.Contains(start) {
			return nil, fmt.Errorf("source yields data at %d, outside of the areas to read", offset)
		}
		if !disk.IsZero(piece) {
			if current != nil && current.offset != start {
				p.send(current)
				current = nil
			}
			if current == nil {
				var err error
				if current, err = p.start(ctx, start); err != nil {
					return nil, err
				}
			}
			current.write(int(offset-start), piece)
		}
		offset += n
		data = data[n:]
	}
	return current, nil
}

// start begins a chunk as soon as there is room for it.
func (p *diskPipeline) start(ctx context.Context, offset int64) (c *chunk, err error) {
	var data []byte
	select {
	case c = <-p.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case data = <-p.buffers:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.offset, c.length, c.filled, c.blocks = offset, min(p.chunkSize, p.capacity-offset), 0, c.blocks[:0]
	if int64(cap(data)) < c.length {
		data = make([]byte, c.length)
	}
	c.data = data[:c.length]
	return c, nil
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
			if err := p.storeChunk(ctx, c); err != nil {
				return err
			}
			c.done <- struct{}{}
		}
	}
}

func (p *diskPipeline) storeChunk(ctx context.Context, c *chunk) (err error) {
	leave, err := p.repository.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx = context.WithValue(ctx, leaveKey{}, leave)
	c.blocks = appendBlocks(c.blocks, c.offset, c.data)
	// A chunk of the sample, too: the base should have it, and its ID tells whether it does.
	compressor := p.compress.choose(len(p.pending), int(p.repository.storage.writing.Load()))
	c.id, err = putChunk(ctx, p.session, p.chunkSize, compressor, c.data)
	p.buffers <- c.data
	c.data = nil
	return err
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

// finish hands the chunks to the output, in order.
func (p *diskPipeline) finish(ctx context.Context) error {
	for {
		var c *chunk
		var ok bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c, ok = <-p.ordered:
		}
		if !ok {
			return p.out.finish()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
		}
		if err := p.out.add(c); err != nil {
			return err
		}
		p.free <- c
	}
}
