package repository

import (
	"bytes"
	"io"

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

// buffer takes the content of a blob that is read.
type buffer struct{ bytes.Buffer }

var _ blob.OutputBuffer = (*buffer)(nil)

// Length implements blob.OutputBuffer.
func (b *buffer) Length() int { return b.Len() }
