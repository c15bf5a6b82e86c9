package diskstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
)

// A model is a disk file held the simplest way there is: all its bytes, and for each block the
// epoch of its last write.
type model struct {
	data   []byte
	stamps []int64
	parent string
	tree   *int64 // the current epoch
}

func (m *model) clone(parent string) *model {
	return &model{data: bytes.Clone(m.data), stamps: slices.Clone(m.stamps), parent: parent, tree: m.tree}
}

// A world drives a Store and its model side by side.
type world struct {
	t      *testing.T
	r      *rand.Rand
	s      *Store
	files  map[string]*model
	serial int
}

func (w *world) pick() (string, *model) {
	names := make([]string, 0, len(w.files))
	for n := range w.files {
		names = append(names, n)
	}
	if len(names) == 0 {
		return "none", nil
	}
	slices.Sort(names)
	n := names[w.r.IntN(len(names))]
	return n, w.files[n]
}

func (w *world) children(name string) (n int) {
	for _, m := range w.files {
		if m.parent == name {
			n++
		}
	}
	return n
}

func (w *world) newName() string {
	w.serial++
	return fmt.Sprintf("[ds] vm/disk-%d.vmdk", w.serial)
}

func (w *world) random(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(w.r.Uint32())
	}
	return p
}

// same asserts that the store answered as the model expects.
func (w *world) same(what string, err, want error) bool {
	w.t.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		w.t.Fatalf("%s: got %v, want %v", what, err, want)
	}
	return want == nil
}

func (w *world) create() {
	n := w.newName()
	size := int64(w.r.IntN(20*BlockSize/512)+1) * 512
	epoch := int64(1)
	m := &model{data: make([]byte, size), stamps: make([]int64, 64), tree: &epoch}
	if w.r.IntN(2) == 0 {
		w.same("create", w.s.Create(n, size), nil)
	} else {
		at := w.r.IntN(int(size))
		p := w.random(w.r.IntN(min(int(size)-at, 3*BlockSize)) + 1)
		copy(m.data[at:], p)
		w.same("seed", w.s.Seed(n, rawImage(w.t, size, map[int64][]byte{int64(at): p})), nil)
	}
	w.files[n] = m
}

func (w *world) write(n string, m *model) {
	off := w.r.IntN(len(m.data))
	p := w.random(w.r.IntN(min(len(m.data)-off, 4*BlockSize)) + 1)
	var want error
	if w.children(n) > 0 {
		want = ErrFrozen
	}
	if w.same("write", w.s.WriteAt(n, p, int64(off)), want) {
		copy(m.data[off:], p)
		for b := off / BlockSize; b*BlockSize < off+len(p); b++ {
			m.stamps[b] = *m.tree
		}
	}
}

func (w *world) commit(n string, m *model) {
	var want error
	switch {
	case m.parent == "":
		want = ErrNotExist
	case w.children(m.parent) != 1:
		want = ErrInUse
	}
	if !w.same("commit", w.s.Commit(n), want) {
		return
	}
	delete(w.files, n)
	for _, c := range w.files {
		if c.parent == n {
			c.parent = m.parent
		}
	}
	w.files[m.parent] = m.clone(w.files[m.parent].parent)
}

func (w *world) remove(n string) {
	var want error
	if w.children(n) > 0 {
		want = ErrInUse
	}
	if w.same("remove", w.s.Remove(n), want) {
		delete(w.files, n)
	}
}

func (w *world) extend(n string, m *model) {
	size := len(m.data) + w.r.IntN(300)*512
	var want error
	if w.children(n) > 0 {
		want = ErrFrozen
	}
	if size > 30*BlockSize {
		return
	}
	if w.same("extend", w.s.Extend(n, int64(size)), want) {
		m.data = append(m.data, make([]byte, size-len(m.data))...)
	}
}

func (w *world) cloneFile(n string, m *model) {
	to := w.newName()
	w.same("clone", w.s.Clone(n, to), nil)
	c := m.clone("")
	epoch := int64(1)
	c.tree = &epoch
	for i := range c.stamps {
		c.stamps[i] = min(c.stamps[i], 1)
	}
	w.files[to] = c
}

func (w *world) rename(n string, m *model) {
	to := w.newName()
	w.same("rename", w.s.Rename(n, to), nil)
	delete(w.files, n)
	w.files[to] = m
	for _, c := range w.files {
		if c.parent == n {
			c.parent = to
		}
	}
}

func (w *world) mark(n string, m *model) {
	e, err := w.s.Mark(n)
	w.same("mark", err, nil)
	if e != *m.tree {
		w.t.Fatalf("mark: got epoch %d, want %d", e, *m.tree)
	}
	*m.tree++
}

// check compares everything that can be known of a file.
func (w *world) check(n string, m *model) {
	w.t.Helper()
	got := bytes.Repeat([]byte{0xee}, len(m.data))
	must(w.t, w.s.ReadAt(n, got, 0))
	if !bytes.Equal(got, m.data) {
		w.t.Fatalf("%s: content differs", n)
	}
	off := w.r.IntN(len(m.data))
	p := bytes.Repeat([]byte{0xee}, w.r.IntN(len(m.data)-off+1))
	must(w.t, w.s.ReadAt(n, p, int64(off)))
	if !bytes.Equal(p, m.data[off:off+len(p)]) {
		w.t.Fatalf("%s: %d bytes at %d differ", n, len(p), off)
	}
	i, err := w.s.Stat(n)
	must(w.t, err)
	if i.Capacity != int64(len(m.data)) || i.Parent != m.parent || i.Children != w.children(n) {
		w.t.Fatalf("%s: got %+v, want parent %q, %d children, capacity %d", n, i, m.parent, w.children(n), len(m.data))
	}
	w.checkSource(n, m)
	since := w.r.Int64N(*m.tree + 1)
	var want []run
	for b := int64(0); b*BlockSize < i.Capacity; b++ {
		if m.stamps[b] <= since {
			continue
		}
		end := min((b+1)*BlockSize, i.Capacity)
		if l := len(want); l > 0 && want[l-1].off+want[l-1].length == b*BlockSize {
			want[l-1].length = end - want[l-1].off
		} else {
			want = append(want, run{b * BlockSize, end - b*BlockSize})
		}
	}
	equalRuns(w.t, changed(w.t, w.s, n, since), want...)
}

// checkSource reads the disk by its extents: what they leave out must be zero.
func (w *world) checkSource(n string, m *model) {
	w.t.Helper()
	src, err := w.s.Source(n)
	must(w.t, err)
	got, end := make([]byte, src.Capacity()), int64(0)
	must(w.t, src.Extents(w.t.Context(), func(off int64, p []byte) error {
		if off < end || off+int64(len(p)) > src.Capacity() {
			w.t.Fatalf("%s: extent of %d bytes at %d after %d", n, len(p), off, end)
		}
		end = off + int64(copy(got[off:], p))
		return nil
	}))
	if !bytes.Equal(got, m.data) {
		w.t.Fatalf("%s: the extents leave out data", n)
	}
	all, err := io.ReadAll(io.NewSectionReader(src, 0, src.Capacity()+1))
	if err != nil || !bytes.Equal(all, m.data) {
		w.t.Fatalf("%s: reading to the end gives %v, or other data", n, err)
	}
}

func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), s: open(t), files: make(map[string]*model)}
			for range 400 {
				w.step()
			}
			for n, m := range w.files {
				w.check(n, m)
			}
		})
	}
}

func (w *world) step() {
	n, m := w.pick()
	op := w.r.IntN(100)
	switch {
	case m == nil, op < 3 && len(w.files) < 8:
		w.create()
	case op < 45:
		w.write(n, m)
	case op < 60:
		if len(w.files) < 12 {
			c := w.newName()
			w.same("create child", w.s.CreateChild(c, n), nil)
			w.files[c] = m.clone(n)
		}
	case op < 70:
		w.commit(n, m)
	case op < 75:
		w.remove(n)
	case op < 79:
		w.extend(n, m)
	case op < 82:
		w.cloneFile(n, m)
	case op < 85:
		w.rename(n, m)
	case op < 92:
		w.mark(n, m)
	}
	if n, m := w.pick(); m != nil {
		w.check(n, m)
	}
}
