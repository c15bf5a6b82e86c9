package diskstore

import (
	"bytes"
	"sync"
	"testing"
)

func TestChain_freezesTheParent(t *testing.T) {
	t.Parallel()
	s := open(t)
	must(t, s.Create("p", 4*BlockSize))
	must(t, s.WriteAt("p", []byte("parent"), 10))
	must(t, s.CreateChild("c", "p"))
	wantErr(t, s.WriteAt("p", []byte("x"), 0), ErrFrozen)
	wantErr(t, s.Remove("p"), ErrInUse)
	wantErr(t, s.Extend("p", 8*BlockSize), ErrFrozen)
	must(t, s.WriteAt("c", []byte("CH"), 10))
	if got := read(t, s, "p", 10, 6); string(got) != "parent" {
		t.Errorf("parent reads %q", got)
	}
	if got := read(t, s, "c", 10, 6); string(got) != "CHrent" {
		t.Errorf("child reads %q", got)
	}
	i, err := s.Stat("c")
	must(t, err)
	i.Disk = 0 // any
	if i != (Info{Capacity: 4 * BlockSize, AllocatedBytes: BlockSize, Parent: "p"}) {
		t.Errorf("got %+v", i)
	}
	must(t, s.Remove("c"))
	must(t, s.WriteAt("p", []byte("x"), 0)) // thawed
}

func TestCommit_inTheMiddleOfAChain(t *testing.T) {
	t.Parallel()
	s := open(t)
	must(t, s.Create("a", 4*BlockSize))
	must(t, s.WriteAt("a", bytes.Repeat([]byte("a"), 3*BlockSize), 0))
	must(t, s.CreateChild("b", "a"))
	must(t, s.WriteAt("b", bytes.Repeat([]byte("b"), BlockSize), BlockSize))
	must(t, s.CreateChild("c", "b"))
	must(t, s.WriteAt("c", []byte("c"), 2*BlockSize))
	want := read(t, s, "c", 0, 4*BlockSize)
	wantErr(t, s.Commit("a"), ErrNotExist) // it has no parent

	must(t, s.Commit("b"))
	if got := read(t, s, "c", 0, 4*BlockSize); !bytes.Equal(got, want) {
		t.Error("a commit below changed what the child reads")
	}
	if got := read(t, s, "a", BlockSize, 1); string(got) != "b" {
		t.Errorf("the parent reads %q after the commit", got)
	}
	if i, err := s.Stat("c"); err != nil || i.Parent != "a" {
		t.Errorf("got %+v, %v", i, err)
	}
	wantErr(t, s.ReadAt("b", make([]byte, 1), 0), ErrNotExist)
	must(t, s.CreateChild("d", "a"))
	wantErr(t, s.Commit("c"), ErrInUse) // d must not see c's data
}

func TestExtend_readsZeroInTheNewPart(t *testing.T) {
	t.Parallel()
	s := open(t)
	raw := rawImage(t, BlockSize/2, map[int64][]byte{BlockSize/2 - 1: {1}})
	must(t, s.Seed("a", raw))
	must(t, s.Extend("a", 3*BlockSize))
	want := make([]byte, 3*BlockSize)
	want[BlockSize/2-1] = 1
	if got := read(t, s, "a", 0, len(want)); !bytes.Equal(got, want) {
		t.Error("wrong content after extending")
	}
	must(t, s.WriteAt("a", []byte{2}, BlockSize-1)) // completes the block from a seed that ends in it
	want[BlockSize-1] = 2
	if got := read(t, s, "a", 0, len(want)); !bytes.Equal(got, want) {
		t.Error("wrong content after writing")
	}
}

func TestClone_isIndependent(t *testing.T) {
	t.Parallel()
	s := open(t)
	must(t, s.Seed("a", rawImage(t, 4*BlockSize, map[int64][]byte{0: []byte("seed")})))
	must(t, s.CreateChild("b", "a"))
	must(t, s.WriteAt("b", []byte("b"), 2*BlockSize))
	must(t, s.Clone("b", "k"))
	want := read(t, s, "b", 0, 4*BlockSize)
	must(t, s.WriteAt("b", []byte("later"), 0))
	if got := read(t, s, "k", 0, 4*BlockSize); !bytes.Equal(got, want) {
		t.Error("the clone is not what was cloned")
	}
	must(t, s.Remove("b"))
	must(t, s.Remove("a")) // the clone still uses the seed
	if got := read(t, s, "k", 0, 4*BlockSize); !bytes.Equal(got, want) {
		t.Error("the clone lost something with its origin")
	}
}

func TestChanged_acrossSnapshotsAndCommits(t *testing.T) {
	t.Parallel()
	const size = 1 << 30
	s := open(t)
	must(t, s.Create("x", size))
	must(t, s.WriteAt("x", []byte("1"), 0))
	e1, err := s.Mark("x")
	must(t, err)
	must(t, s.CreateChild("x-1", "x"))
	must(t, s.WriteAt("x-1", []byte("2"), 5*BlockSize))
	must(t, s.WriteAt("x-1", make([]byte, 2*BlockSize), 100<<20))
	e2, err := s.Mark("x-1")
	must(t, err)
	must(t, s.CreateChild("x-2", "x-1"))
	must(t, s.WriteAt("x-2", []byte("3"), size-1))

	equalRuns(t, changed(t, s, "x", e1))
	equalRuns(t, changed(t, s, "x-1", e1), run{5 * BlockSize, BlockSize}, run{100 << 20, 2 * BlockSize})
	equalRuns(t, changed(t, s, "x-2", e2), run{size - BlockSize, BlockSize})
	want := []run{{5 * BlockSize, BlockSize}, {100 << 20, 2 * BlockSize}, {size - BlockSize, BlockSize}}
	equalRuns(t, changed(t, s, "x-2", e1), want...)
	must(t, s.Commit("x-1"))
	equalRuns(t, changed(t, s, "x-2", e1), want...)
	must(t, s.Commit("x-2"))
	equalRuns(t, changed(t, s, "x", e1), want...)
	equalRuns(t, changed(t, s, "x", e2), run{size - BlockSize, BlockSize})
	equalRuns(t, extents(t, s, "x"), append([]run{{0, BlockSize}}, want...)...)
}

func TestConcurrent_writesAndChainChanges(t *testing.T) {
	t.Parallel()
	s := open(t)
	const size = 64 * BlockSize
	must(t, s.Create("[ds] a.vmdk", size))
	var current sync.RWMutex // the guest's view of where it runs
	name := "[ds] a.vmdk"
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range byte(3) {
		wg.Go(func() {
			p := make([]byte, BlockSize)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				off := int64(i%21*3+int(w)) * BlockSize
				current.RLock()
				err := s.WriteAt(name, bytes.Repeat([]byte{byte(i)}, BlockSize), off)
				if err == nil {
					err = s.ReadAt(name, p, off)
				}
				current.RUnlock()
				if err != nil {
					t.Error(err)
					return
				}
				if bytes.Count(p, []byte{byte(i)}) != BlockSize {
					t.Errorf("read something else than written")
					return
				}
			}
		})
	}
	for range 50 {
		_, err := s.Mark("[ds] a.vmdk")
		must(t, err)
		current.Lock()
		must(t, s.CreateChild("[ds] a-000001.vmdk", "[ds] a.vmdk"))
		name = "[ds] a-000001.vmdk"
		current.Unlock()
		frozen := read(t, s, "[ds] a.vmdk", 0, size)
		must(t, s.Clone("[ds] a-000001.vmdk", "[ds] k.vmdk"))
		must(t, s.Remove("[ds] k.vmdk"))
		if !bytes.Equal(frozen, read(t, s, "[ds] a.vmdk", 0, size)) {
			t.Error("a frozen file changed")
		}
		current.Lock()
		must(t, s.Commit("[ds] a-000001.vmdk"))
		name = "[ds] a.vmdk"
		current.Unlock()
	}
	close(done)
	wg.Wait()
}
