package repository

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
)

const (
	mib = 1 << 20
	tib = 1 << 40

	maxChunkSize = 4 * mib

	// compressor keeps up with any way to read a virtual machine's disk, and stores a seventh less
	// than the fastest one.
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
func splitter(chunkSize int64) string { return "FIXED-" + strconv.FormatInt(chunkSize/mib, 10) + "M" }

// maxWorkers bounds the goroutines that work on one disk. Each of them may hold a pack of 20 MB that
// is being written, and four are faster than any way to read a virtual machine's disk.
const maxWorkers = 4

// window says how many chunks of a disk may be in flight, and how many goroutines work on them.
func window() (chunks, workers int) {
	workers = min(max(2, runtime.GOMAXPROCS(0)), maxWorkers)
	return 2*workers + 2, workers
}

// putChunk stores a chunk as one content.
func putChunk(ctx context.Context, w repo.RepositoryWriter, chunkSize int64, b []byte) (object.ID, error) {
	ow := w.NewObjectWriter(ctx, object.WriterOptions{Splitter: splitter(chunkSize), Compressor: compressor})
	defer ow.Close() //nolint:errcheck // always nil
	if _, err := ow.Write(b); err != nil {
		return object.EmptyID, err
	}
	return ow.Result()
}

// A chunk table is what Kopia calls an indirect object: JSON of this form, in an object with the
// prefix x. The ID of the whole is "I" and the ID of the table.
//
//	{"stream":"kopia:indirect","entries":[{"l":1048576,"o":"…"},{"s":1048576,"l":1048576,"o":"…"}]}
const (
	tableStream = "kopia:indirect"
	tableHead   = `{"stream":"` + tableStream + `","entries":[`
	tableTail   = "]}\n"
)

// A tableWriter writes the chunk table of one disk as its chunks become known, in order. The table
// of a large disk takes more memory than all chunks in flight: it is never held.
type tableWriter struct {
	ctx       context.Context // of the writer's one run
	session   repo.RepositoryWriter
	capacity  int64
	chunkSize int64

	next  int64               // offset of the next entry
	zeros map[int64]object.ID // by length
	only  object.ID           // of a disk of one chunk, which needs no table
	table object.Writer       // nil for such a disk
	out   *bufio.Writer       // into table
	entry [128]byte           // scratch
}

func newTableWriter(ctx context.Context, session repo.RepositoryWriter, capacity, chunkSize int64) *tableWriter {
	t := &tableWriter{
		ctx: ctx, session: session, capacity: capacity, chunkSize: chunkSize, zeros: map[int64]object.ID{},
	}
	if capacity > chunkSize {
		t.table = session.NewObjectWriter(ctx, object.WriterOptions{
			Description: "chunk table", Prefix: "x", Compressor: compressor, MetadataCompressor: compressor,
		})
		t.out = bufio.NewWriterSize(t.table, 64<<10)
		_, _ = t.out.WriteString(tableHead) // Flush reports it
	}
	return t
}

// length is that of the chunk at offset.
func (t *tableWriter) length(offset int64) int64 { return min(t.chunkSize, t.capacity-offset) }

// add enters the chunk at offset. What was not entered before it is zero.
func (t *tableWriter) add(offset int64, id object.ID) error {
	if err := t.addZeros(offset); err != nil {
		return err
	}
	return t.put(id)
}

func (t *tableWriter) addZeros(end int64) error {
	for n := 0; t.next < end; n++ {
		if n%4096 == 0 && t.ctx.Err() != nil {
			return t.ctx.Err()
		}
		id, err := t.zero(t.length(t.next))
		if err != nil {
			return err
		}
		if err := t.put(id); err != nil {
			return err
		}
	}
	return nil
}

func (t *tableWriter) put(id object.ID) error {
	offset, length := t.next, t.length(t.next)
	t.next += length
	if t.table == nil {
		t.only = id
		return nil
	}
	b := t.entry[:0]
	if offset > 0 {
		b = append(b, `,{"s":`...)
		b = strconv.AppendInt(b, offset, 10)
		b = append(b, `,"l":`...)
	} else {
		b = append(b, `{"l":`...)
	}
	b = strconv.AppendInt(b, length, 10)
	b = append(b, `,"o":"`...)
	b = id.Append(b)
	b = append(b, `"}`...)
	_, err := t.out.Write(b)
	return err
}

// zero stores a chunk of zeros, once per length.
func (t *tableWriter) zero(length int64) (object.ID, error) {
	if id, ok := t.zeros[length]; ok {
		return id, nil
	}
	id, err := putChunk(t.ctx, t.session, t.chunkSize, make([]byte, length))
	if err == nil {
		t.zeros[length] = id
	}
	return id, err
}

// finish completes the table and returns the ID of the disk.
func (t *tableWriter) finish() (object.ID, error) {
	if err := t.addZeros(t.capacity); err != nil || t.table == nil {
		return t.only, err
	}
	_, _ = t.out.WriteString(tableTail)
	if err := t.out.Flush(); err != nil {
		return object.EmptyID, err
	}
	id, err := t.table.Result()
	if err != nil {
		return object.EmptyID, err
	}
	return object.ParseID("I" + id.String())
}

func (t *tableWriter) close() {
	if t.table != nil {
		_ = t.table.Close() // always nil
	}
}

var errTable = errors.New("malformed chunk table")

// readTable calls entry for every entry of a chunk table, in the order they have there. The table is
// never held as a whole.
func readTable(r io.Reader, entry func(object.IndirectObjectEntry) error) error {
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('{')); err != nil {
		return err
	}
	var stream string
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return fmt.Errorf("%w: %w", errTable, err)
		}
		switch key {
		case "entries":
			if err := readEntries(d, entry); err != nil {
				return err
			}
			continue
		case "stream":
			err = d.Decode(&stream)
		default:
			err = d.Decode(new(json.RawMessage))
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errTable, err)
		}
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return err
	}
	if stream != tableStream {
		return fmt.Errorf("%w: the stream is %q", errTable, stream)
	}
	return nil
}

func readEntries(d *json.Decoder, entry func(object.IndirectObjectEntry) error) error {
	if err := expect(d, json.Delim('[')); err != nil {
		return err
	}
	for d.More() {
		var e object.IndirectObjectEntry
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("%w: %w", errTable, err)
		}
		if err := entry(e); err != nil {
			return err
		}
	}
	return expect(d, json.Delim(']'))
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", errTable, err)
	}
	if got != want {
		return fmt.Errorf("%w: %v where %v belongs", errTable, got, want)
	}
	return nil
}

// eachChunk calls chunk for every chunk of the disk with the given ID, in order, and sees to it that
// they make up the disk's capacity.
func eachChunk(ctx context.Context, r repo.Repository, id object.ID, capacity int64,
	chunk func(object.IndirectObjectEntry) error,
) error {
	tableID, ok := id.IndexObjectID()
	if !ok {
		return chunk(object.IndirectObjectEntry{Length: capacity, Object: id})
	}
	table, err := r.OpenObject(ctx, tableID)
	if err != nil {
		return fmt.Errorf("read chunk table %s: %w", tableID, err)
	}
	defer table.Close() //nolint:errcheck // nothing to lose after reading
	var next int64
	err = readTable(table, func(e object.IndirectObjectEntry) error {
		_, indirect := e.Object.IndexObjectID()
		if e.Start != next || e.Length <= 0 || e.Length > maxChunkSize || indirect || e.Object == object.EmptyID {
			return fmt.Errorf("%w: entry %d+%d where %d is next", errTable, e.Start, e.Length, next)
		}
		next += e.Length
		return chunk(e)
	})
	if err != nil {
		return fmt.Errorf("read chunk table %s: %w", tableID, err)
	}
	if next != capacity {
		return fmt.Errorf("read chunk table %s: %w: it ends at %d, the disk at %d", tableID, errTable, next, capacity)
	}
	return nil
}
