package repository

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// A Writer makes one restore point: disks first, then Commit. What isn't committed is never listed,
// and its space comes back through maintenance.
type Writer struct {
	repository *Repository

	mu     sync.Mutex
	disks  map[string]*writtenDisk // by file name; nil while it is being written, and if that failed
	closed bool
	unlock func() // nil: done
}

type writtenDisk struct {
	id       object.ID
	hashes   object.ID
	capacity int64
	result   DiskResult
}

// DiskResult is what became of a disk. Numbers are in bytes.
type DiskResult struct {
	Digest      disk.Digest
	Hashes      string // name of the file with the hashes of the blocks
	ChunkSize   int64
	ReadBytes   int64 // that the source gave
	DataBytes   int64 // in chunks that are not all zero
	StoredBytes int64 // added to the repository: compressed, without what was there already
}

var errWriterDone = errors.New("the writer was committed or closed")

// NewWriter starts a restore point. It returns ErrReadOnly or ErrFull where nothing can be written. It waits
// for maintenance to end, which for too long gives ErrBusy; there is none until the Writer is closed.
func (r *Repository) NewWriter(ctx context.Context) (_ *Writer, err error) {
	if err := r.checkWritable(ctx); err != nil {
		return nil, fmt.Errorf("write to repository %s: %w", r.path, err)
	}
	unlock, err := r.share(ctx)
	if err != nil {
		return nil, fmt.Errorf("write to repository %s: %w", r.path, err)
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	if err := r.ensureOwner(ctx); err != nil {
		return nil, fmt.Errorf("set the owner of repository %s: %w", r.path, err)
	}
	return &Writer{repository: r, disks: map[string]*writtenDisk{}, unlock: unlock}, nil
}

// Close abandons what was not committed. A Writer may be closed more than once.
func (w *Writer) Close(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disks = nil
	w.done()
	return nil
}

// done ends the use of the repository. w.mu is locked.
func (w *Writer) done() {
	w.closed = true
	if w.unlock != nil {
		w.unlock()
		w.unlock = nil
	}
}

// WriteDisk stores a disk under a file name. It may be called concurrently for several disks. The
// data of a disk goes into packs of its own, whatever other disks do at the same time.
//
// Errors: those of the source and of ctx; ErrReadOnly, ErrFull.
func (w *Writer) WriteDisk(ctx context.Context, file string, src disk.Source) (DiskResult, error) {
	return w.writeDisk(ctx, file, src, nil)
}

// WriteChanges stores a disk as WriteDisk does. The source gives the areas of the base alone; the rest is
// taken over from the base without reading its content.
//
// Errors: as WriteDisk; ErrIncomplete if the base is gone or can't be read (write the whole disk); a
// *TrackingError.
func (w *Writer) WriteChanges(ctx context.Context, file string, src disk.Source, base Base) (DiskResult, error) {
	return w.writeDisk(ctx, file, src, &base)
}

func (w *Writer) writeDisk(ctx context.Context, file string, src disk.Source, base *Base) (DiskResult, error) {
	if err := w.reserve(file); err != nil {
		return DiskResult{}, fmt.Errorf("write disk %q: %w", file, err)
	}
	written, err := w.repository.writeDisk(ctx, src, base)
	if err != nil {
		return DiskResult{}, fmt.Errorf("write disk %q to repository %s: %w", file, w.repository.path, writeError(err))
	}
	written.result.Hashes = file + hashesSuffix
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
	if err := checkFileName(file + hashesSuffix); err != nil {
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

func (r *Repository) writeDisk(ctx context.Context, src disk.Source, from *Base) (_ *writtenDisk, err error) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	capacity := src.Capacity()
	if capacity <= 0 {
		return nil, fmt.Errorf("a capacity of %d bytes", capacity)
	}
	var base *openBase
	if from != nil {
		if base, err = r.openBase(ctx, from, capacity); err != nil {
			return nil, err
		}
		defer base.close()
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
	p := newDiskPipeline(r, src, session, base)
	if err := p.run(sessionCtx); err != nil {
		return nil, err
	}
	if err := session.Flush(sessionCtx); err != nil {
		return nil, err
	}
	written := p.out.written
	written.result.ChunkSize, written.result.ReadBytes = p.chunkSize, p.readBytes
	written.result.StoredBytes = stored.Load()
	return &written, nil
}
