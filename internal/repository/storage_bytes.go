package repository

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/kopia/kopia/repo/blob"
)

// blobBytes is the content of a blob that is written.
type blobBytes []byte

var _ blob.Bytes = blobBytes{}

func (b blobBytes) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)
	return int64(n), err
}

func (b blobBytes) Length() int { return len(b) }

func (b blobBytes) Reader() io.ReadSeekCloser { return blobReader{bytes.NewReader(b)} }

type blobReader struct{ *bytes.Reader }

func (blobReader) Close() error { return nil }

// lentBytes are the content of a blob that belongs to somebody else. Who still reads when they are given back, gets an error.
type lentBytes struct {
	data   blob.Bytes
	length int

	mu    sync.RWMutex
	taken bool
}

var errGivenBack = errors.New("the content is given back")

// lend lends content until it is given back.
func lend(data blob.Bytes) (_ *lentBytes, giveBack func()) {
	l := &lentBytes{data: data, length: data.Length()}
	return l, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.taken = true
	}
}

// Length implements blob.Bytes.
func (l *lentBytes) Length() int { return l.length }

// Reader implements blob.Bytes.
func (l *lentBytes) Reader() io.ReadSeekCloser {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.taken {
		return lentReader{l, blobReader{bytes.NewReader(nil)}}
	}
	return lentReader{l, l.data.Reader()}
}

// WriteTo implements blob.Bytes.
func (l *lentBytes) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, l.Reader()) }

type lentReader struct {
	lent *lentBytes
	from io.ReadSeekCloser
}

func (r lentReader) Read(b []byte) (int, error) {
	r.lent.mu.RLock()
	defer r.lent.mu.RUnlock()
	if r.lent.taken {
		return 0, errGivenBack
	}
	return r.from.Read(b)
}

func (r lentReader) Seek(offset int64, whence int) (int64, error) { return r.from.Seek(offset, whence) }

func (r lentReader) Close() error { return r.from.Close() }

// buffer takes the content of a blob that is read.
type buffer struct{ bytes.Buffer }

var _ blob.OutputBuffer = (*buffer)(nil)

// Length implements blob.OutputBuffer.
func (b *buffer) Length() int { return b.Len() }
