package vmdk

import (
	"bytes"
	"compress/zlib" // another implementation than the one that is used here
	"encoding/binary"
	"io"
	"testing"
)

// TestStore unpacks grains that are not compressed.
func TestStore(t *testing.T) {
	t.Parallel()
	g := &deflation{index: 3}
	for _, size := range []int{grainSize, maxStored, maxStored - 1, 1} { // all with the same buffers
		g.data = noise(uint64(size), size)
		g.store()
		length := binary.LittleEndian.Uint32(g.record[8:])
		in := bytes.NewReader(g.record[grainHeaderSize : grainHeaderSize+length])
		z, err := zlib.NewReader(in)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(data, g.data) || in.Len() != 0 {
			t.Errorf("%d bytes: %v, or other bytes, or %d bytes are left", size, err, in.Len())
		}
		if at := binary.LittleEndian.Uint64(g.record); at != 3*grainSize/sectorSize || len(g.record)%sectorSize != 0 {
			t.Errorf("%d bytes: a record of %d bytes for sector %d", size, len(g.record), at)
		}
	}
}
