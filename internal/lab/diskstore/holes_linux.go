package diskstore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dataExtents asks the file system where a sparse file has data (lseek(2), SEEK_DATA and
// SEEK_HOLE). errors.ErrUnsupported says that it doesn't know.
func dataExtents(f *os.File, size int64, yield func(off, end int64)) error {
	for off := int64(0); off < size; {
		start, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole from here on
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		yield(start, min(end, size))
		off = end
	}
	return nil
}
