package repository

import (
	"context"
	"fmt"
	"runtime"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/object"
)

const (
	mib = 1 << 20
	tib = 1 << 40

	maxChunkSize = 4 * mib

	// compressor is that of everything but disks.
	compressor = "zstd-fastest"
)

// ChunkSize is the size in bytes of the chunks that a disk of the given capacity is stored in. It
// grows with the capacity, so that the chunk table stays small.
func ChunkSize(capacity int64) int64 {
	switch {
	case capacity <= 1*tib:
		return 1 * mib
	case capacity <= 4*tib:
		return 2 * mib
	default:
		return maxChunkSize
	}
}

// splitter names the Kopia splitter that makes one content of one chunk.
func splitter(chunkSize int64) string {
	if chunkSize < mib {
		return fmt.Sprintf("FIXED-%dK", chunkSize>>10)
	}
	return fmt.Sprintf("FIXED-%dM", chunkSize/mib)
}

// workers is how many goroutines store or load chunks at once, of all disks together: more than there are
// processors, because each now and then waits until a pack of 20 MB is on the storage. More of them would
// hold more packs in memory, and not be faster.
func workers() int { return min(runtime.GOMAXPROCS(0)+1, 8) }

// maxUploads is how many packs are uploaded to a Place at once, of all disks together, beside what the workers do: to a
// service that is far away, each connection takes much less than the network does. Each is a pack of 20 MB in memory.
const maxUploads = 6

// packChunks is how many chunks a pack holds, when they compress well.
const packChunks = 64

// uploads is how many packs may be on their way while the workers go on.
func (r *Repository) uploads() int {
	if r.remote == nil {
		return 0
	}
	return maxUploads
}

// leaveKey is that of the function, in a context, by which a worker makes room for another.
type leaveKey struct{}

// window says how many chunks of a disk may be in flight.
func window() int { return 2*workers() + 2 }

// putChunk stores a chunk as one content.
func putChunk(
	ctx context.Context, w repo.RepositoryWriter, chunkSize int64, compressor compression.Name, b []byte,
) (object.ID, error) {
	ow := w.NewObjectWriter(ctx, object.WriterOptions{Splitter: splitter(chunkSize), Compressor: compressor})
	defer ow.Close() //nolint:errcheck // always nil
	if _, err := ow.Write(b); err != nil {
		return object.EmptyID, err
	}
	return ow.Result()
}

// readChunk reads a chunk as a whole.
func readChunk(ctx context.Context, rep repo.DirectRepository, e object.IndirectObjectEntry) ([]byte, error) {
	cid, compressed, ok := e.Object.ContentID()
	if !ok || compressed {
		return nil, fmt.Errorf("%w: chunk %s at %d is of an unknown kind", ErrDamaged, e.Object, e.Start)
	}
	data, err := rep.ContentReader().GetContent(ctx, cid)
	if err != nil {
		pack := "no known pack"
		if info, infoErr := rep.ContentInfo(ctx, cid); infoErr == nil {
			pack = "pack " + string(info.PackBlobID)
		}
		return nil, fmt.Errorf("chunk %s at %d in %s: %w", e.Object, e.Start, pack, readError(err))
	}
	if int64(len(data)) != e.Length {
		return nil, fmt.Errorf("%w: chunk %s at %d has %d bytes instead of %d",
			ErrDamaged, e.Object, e.Start, len(data), e.Length)
	}
	return data, nil
}
