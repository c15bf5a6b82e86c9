package repository

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
)

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
	id, err := t.store(make([]byte, length))
	if err == nil {
		t.zeros[length] = id
	}
	return id, err
}

// store stores a chunk that is entered later.
func (t *tableWriter) store(b []byte) (object.ID, error) {
	return putChunk(t.ctx, t.session, t.chunkSize, compressor, b)
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

var (
	errTable = errors.New("malformed chunk table")
	errEnd   = errors.New("end of the chunk table")
)

// A tableReader reads a chunk table, in the one form that Kopia and this package write. The table is never
// held as a whole.
type tableReader struct {
	in     *bufio.Reader
	begun  bool
	ended  bool
	last   []byte    // text of the last object ID: runs of zero chunks are long
	lastID object.ID // what it means
}

func newTableReader(r io.Reader) *tableReader {
	return &tableReader{in: bufio.NewReaderSize(r, 64<<10)}
}

// next is the next entry of the table. The error is errEnd behind the last, else it wraps errTable.
func (t *tableReader) next() (e object.IndirectObjectEntry, err error) {
	if t.ended {
		return e, errEnd
	}
	first := !t.begun
	if first {
		head := make([]byte, len(tableHead))
		if _, err := io.ReadFull(t.in, head); err != nil {
			return e, fmt.Errorf("%w: %w", errTable, err)
		}
		if string(head) != tableHead {
			return e, fmt.Errorf("%w: it begins with %q", errTable, head)
		}
		t.begun = true
	}
	text, err := t.in.ReadSlice('}')
	if err != nil {
		return e, fmt.Errorf("%w: %w", errTable, err)
	}
	if text[0] == ']' {
		return e, t.finish(text)
	}
	if !first {
		if text[0] != ',' {
			return e, fmt.Errorf("%w: %q where a comma belongs", errTable, text)
		}
		text = text[1:]
	}
	return t.parse(text)
}

// finish sees to it that nothing follows the end of the table.
func (t *tableReader) finish(text []byte) error {
	rest, err := t.in.Peek(2)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", errTable, err)
	case len(text) != 2 || len(rest) > 1 || len(rest) == 1 && rest[0] != '\n':
		return fmt.Errorf("%w: it ends with %q%q", errTable, text, rest)
	}
	t.ended = true
	return errEnd
}

// parse reads an entry. Numbers that are zero are left out.
func (t *tableReader) parse(text []byte) (e object.IndirectObjectEntry, err error) {
	rest, ok := bytes.CutPrefix(text, []byte("{"))
	if after, found := bytes.CutPrefix(rest, []byte(`"s":`)); found && ok {
		e.Start, rest, ok = cutNumber(after)
	}
	if after, found := bytes.CutPrefix(rest, []byte(`"l":`)); found && ok {
		e.Length, rest, ok = cutNumber(after)
	}
	id, found := bytes.CutPrefix(rest, []byte(`"o":"`))
	id, closed := bytes.CutSuffix(id, []byte(`"}`))
	if !ok || !found || !closed {
		return e, fmt.Errorf("%w: entry %q", errTable, text)
	}
	if !bytes.Equal(id, t.last) || len(id) == 0 {
		if t.lastID, err = object.ParseID(string(id)); err != nil {
			return e, fmt.Errorf("%w: entry %q: %w", errTable, text, err)
		}
		t.last = append(t.last[:0], id...)
	}
	e.Object = t.lastID
	return e, nil
}

// cutNumber reads a positive number and the comma behind it.
func cutNumber(b []byte) (n int64, rest []byte, ok bool) {
	digits, rest, ok := bytes.Cut(b, []byte(","))
	if !ok || len(digits) == 0 || len(digits) > 18 || digits[0] == '0' {
		return 0, nil, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, nil, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, rest, true
}

// unknownLength is for objects whose length only their chunk table tells.
const unknownLength = -1

// A chunkList gives the chunks that a stored object consists of, in order.
type chunkList struct {
	id       object.ID
	capacity int64
	next     int64 // offset of the next chunk
	file     object.Reader
	table    *tableReader // nil for an object of one chunk
}

// openChunks opens the list of an object's chunks. Capacity is the object's length in bytes, or
// unknownLength where it has a table.
func openChunks(ctx context.Context, r repo.Repository, id object.ID, capacity int64) (*chunkList, error) {
	l := &chunkList{id: id, capacity: capacity}
	if tableID, ok := id.IndexObjectID(); ok {
		file, err := r.OpenObject(ctx, tableID)
		if err != nil {
			return nil, fmt.Errorf("read chunk table %s: %w", tableID, err)
		}
		l.file, l.table = file, newTableReader(file)
	}
	return l, nil
}

func (l *chunkList) close() {
	if l.file != nil {
		_ = l.file.Close() // nothing to lose after reading
	}
}

// chunk is the next chunk, or the error errEnd behind the last. It sees to it that the chunks make up the
// capacity.
func (l *chunkList) chunk() (e object.IndirectObjectEntry, err error) {
	if l.table == nil {
		if l.next == l.capacity {
			return e, errEnd
		}
		l.next = l.capacity
		return object.IndirectObjectEntry{Length: l.capacity, Object: l.id}, nil
	}
	e, err = l.table.next()
	switch {
	case errors.Is(err, errEnd) && (l.next == l.capacity || l.capacity == unknownLength):
		return e, errEnd
	case errors.Is(err, errEnd):
		err = fmt.Errorf("%w: it ends at %d instead of %d", errTable, l.next, l.capacity)
	case err == nil:
		_, indirect := e.Object.IndexObjectID()
		if e.Start != l.next || e.Length <= 0 || e.Length > maxChunkSize || indirect || e.Object == object.EmptyID {
			err = fmt.Errorf("%w: entry %d+%d where %d is next", errTable, e.Start, e.Length, l.next)
		}
	}
	if err != nil {
		return e, fmt.Errorf("read chunk table %s: %w", l.id, err)
	}
	l.next += e.Length
	return e, nil
}

// eachChunk calls yield for every chunk of the object with the given ID, in order.
func eachChunk(ctx context.Context, r repo.Repository, id object.ID, capacity int64,
	yield func(object.IndirectObjectEntry) error,
) error {
	l, err := openChunks(ctx, r, id, capacity)
	if err != nil {
		return err
	}
	defer l.close()
	for {
		e, err := l.chunk()
		if errors.Is(err, errEnd) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := yield(e); err != nil {
			return err
		}
	}
}
