package vsphere

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/vmdk"
)

// errBody: whoever takes a body wants no more of it.
var errBody = errors.New("the connection takes no more")

// A diskBody is a disk as the body of a request: a stream-optimized VMDK, which is measured. The HTTP client has
// it write itself to the connection, without a pipe and without another buffer between them. It goes out once.
type diskBody struct {
	ctx    context.Context // of the one request
	cancel context.CancelCauseFunc
	source disk.Source
	*checksummer

	mu   sync.Mutex
	used bool           // it goes out, or must not any more
	out  io.Writer      // where it goes
	pipe *io.PipeReader // for a client that reads
	done chan struct{}  // closed when err is set
	err  error
}

func newDiskBody(ctx context.Context, source disk.Source, useSHA256 bool) *diskBody {
	b := &diskBody{source: source, checksummer: newChecksummer(useSHA256), done: make(chan struct{})}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	return b
}

// use reports whether the body may go out: it is the first who asks.
func (b *diskBody) use() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.used
	b.used = true
	return first
}

// WriteTo implements io.WriterTo.
func (b *diskBody) WriteTo(w io.Writer) (int64, error) {
	if !b.use() {
		return 0, errBody
	}
	return b.write(w)
}

func (b *diskBody) write(w io.Writer) (int64, error) {
	defer close(b.done)
	b.out = w
	_, b.err = vmdk.Encode(b.ctx, b, b.source, vmdk.EncodeOptions{Adapt: true})
	return b.size, b.err
}

// Write passes on what the encoder made.
func (b *diskBody) Write(p []byte) (int, error) {
	n, err := b.out.Write(p)
	b.add(p[:n])
	if err != nil {
		err = errors.Join(errBody, err)
	}
	return n, err
}

// Read implements io.Reader, for clients that don't know WriteTo.
func (b *diskBody) Read(p []byte) (int, error) {
	if b.use() {
		reader, writer := io.Pipe()
		b.mu.Lock()
		b.pipe = reader
		b.mu.Unlock()
		go func() {
			_, err := b.write(writer)
			_ = writer.CloseWithError(err) // never fails; nil makes the reader see the end
		}()
	}
	b.mu.Lock()
	reader := b.pipe
	b.mu.Unlock()
	if reader == nil {
		return 0, errBody
	}
	return reader.Read(p)
}

// Close implements io.Closer: a client that reads wants no more.
func (b *diskBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pipe == nil {
		return nil
	}
	return b.pipe.Close()
}

// end sees to it that nothing goes out any more when the request is over, and returns how encoding ended: nil
// only if all of the disk went out. The connection must be of no use by now if not all was taken: the HTTP client
// closes one whose server answered early.
func (b *diskBody) end() error {
	b.cancel(errBody)
	if b.use() {
		return errBody
	}
	_ = b.Close() // always nil
	<-b.done
	if errors.Is(b.err, context.Canceled) {
		return context.Cause(b.ctx)
	}
	return b.err
}
