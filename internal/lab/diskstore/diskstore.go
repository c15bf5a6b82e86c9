// Package diskstore keeps the bytes of virtual disks: sparse overlay files over read-only raw
// images, chained as a hypervisor chains its snapshots, with change tracking.
//
// A file is addressed by its datastore path, "[LocalDS_0] web01/web01.vmdk". It holds the blocks of
// 64 KiB that were written to it; every other block is its parent's, or at the bottom of the chain
// the seed's, or zero. A disk costs what is written to it, whatever its capacity. Nothing outlives
// the process: Close removes the overlay files.
//
// All methods may be called at the same time. Reads and writes of one chain go on side by side;
// what changes a chain's shape (CreateChild, Commit, Remove, Mark, …) waits for them and holds back
// new ones, as a hypervisor stuns the VM.
package diskstore

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// BlockSize is the unit of allocation and of change tracking, in bytes.
const BlockSize = 64 << 10

// SectorSize is what a capacity must be a multiple of, in bytes.
const SectorSize = 512

// The errors of this package, to be told apart with errors.Is.
var (
	ErrExist    = errors.New("file exists already")
	ErrNotExist = errors.New("no such file")
	ErrInUse    = errors.New("file is the parent of another")
	ErrFrozen   = errors.New("file is the parent of another and takes no writes")
	ErrCapacity = errors.New("not a valid capacity")
	ErrRange    = errors.New("outside the disk")
	ErrClosed   = errors.New("store is closed")
)

// A Store is a set of disk files below one directory.
type Store struct {
	dir string

	// mu guards the fields below. It is never held during I/O, and is taken after a tree's lock.
	mu     sync.RWMutex
	files  map[string]*file
	serial int
	closed bool
}

// A tree is a root file and everything chained on it.
type tree struct {
	id int // of the disk, whatever its files are called

	// mu is held for reading by reads and writes of data, for writing by whatever changes the
	// shape of the tree or closes an epoch.
	mu    sync.RWMutex
	epoch uint32 // stamp of the writes that happen now; from 1
}

// A file is one link of a chain. Its shape (everything but the overlay) changes only under the
// exclusive lock of its tree.
type file struct {
	name     string
	capacity int64
	tree     *tree
	parent   *file
	seed     *seed // root files only
	children int
	removed  bool

	mu      sync.RWMutex // guards the overlay of the one link that takes writes
	overlay *overlay
}

// Info describes a file.
type Info struct {
	// Capacity is the size of the disk in bytes.
	Capacity int64
	// AllocatedBytes is what this file holds itself, its seed's data included, its parents' not.
	AllocatedBytes int64
	// Parent is the name of the file below, or empty.
	Parent string
	// Disk is a number that all files of one disk have, and no other disk.
	Disk int
	// Children counts the files chained on this one. A file with children is frozen.
	Children int
}

// Open makes an empty store whose files live in dir, which is created when it doesn't exist.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open disk store: %w", err)
	}
	return &Store{dir: dir, files: make(map[string]*file)}, nil
}

// Close closes and removes every overlay file. The seeds stay as they are.
func (s *Store) Close() error {
	s.mu.Lock()
	files := s.files
	s.files, s.closed = make(map[string]*file), true
	s.mu.Unlock()
	var errs []error
	for _, f := range files {
		f.tree.mu.Lock()
		errs = append(errs, f.discard())
		f.tree.mu.Unlock()
	}
	return errors.Join(errs...)
}

// discard closes the file and gives its space back. The caller holds the tree's exclusive lock.
func (f *file) discard() error {
	f.removed = true
	err := f.overlay.remove()
	if f.seed != nil {
		err = errors.Join(err, f.seed.release())
	}
	return err
}

// Create makes an empty disk of the given capacity in bytes.
func (s *Store) Create(name string, capacity int64) error {
	if err := checkCapacity(capacity); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return s.add("create", &file{name: name, capacity: capacity, tree: &tree{epoch: 1}})
}

// Seed makes a disk whose content is that of a raw image file, which is only ever read. The
// capacity is the image's size.
func (s *Store) Seed(name, rawFile string) error {
	sd, err := openSeed(rawFile)
	if err != nil {
		return fmt.Errorf("seed %s: %w", name, err)
	}
	if err := s.add("seed", &file{name: name, capacity: sd.size, tree: &tree{epoch: 1}, seed: sd}); err != nil {
		return errors.Join(err, sd.release())
	}
	return nil
}

func checkCapacity(c int64) error {
	if c <= 0 || c%SectorSize != 0 {
		return fmt.Errorf("%w: %d bytes is not a positive multiple of %d", ErrCapacity, c, SectorSize)
	}
	return nil
}

// add enters f under its name and gives it an overlay.
func (s *Store) add(what string, f *file) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("%s %s: %w", what, f.name, ErrClosed)
	}
	if s.files[f.name] != nil {
		return fmt.Errorf("%s %s: %w", what, f.name, ErrExist)
	}
	s.serial++
	base := strings.TrimSuffix(path.Base(f.name), ".vmdk")
	if f.tree.id == 0 {
		f.tree.id = s.serial
	}
	f.overlay = &overlay{path: filepath.Join(s.dir, fmt.Sprintf("%06d-%s.overlay", s.serial, fileName(base)))}
	s.files[f.name] = f
	return nil
}

// fileName makes a harmless file name of a disk's.
func fileName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, s)
	return s[:min(len(s), 80)]
}

// get finds a file and takes its tree's lock, shared or exclusive. The caller unlocks it.
func (s *Store) get(name string, exclusive bool) (*file, error) {
	for {
		s.mu.RLock()
		f := s.files[name]
		s.mu.RUnlock()
		if f == nil {
			return nil, fmt.Errorf("%s: %w", name, ErrNotExist)
		}
		if exclusive {
			f.tree.mu.Lock()
		} else {
			f.tree.mu.RLock()
		}
		s.mu.RLock()
		same := s.files[name] == f && !f.removed
		s.mu.RUnlock()
		if same {
			return f, nil
		}
		if exclusive { // removed or renamed while we waited for the lock: look again
			f.tree.mu.Unlock()
		} else {
			f.tree.mu.RUnlock()
		}
	}
}

// CreateChild chains a new, empty file on parent, which takes no writes from now on.
func (s *Store) CreateChild(name, parent string) error {
	p, err := s.get(parent, true)
	if err != nil {
		return fmt.Errorf("create child %s: %w", name, err)
	}
	defer p.tree.mu.Unlock()
	if err := s.add("create child", &file{name: name, capacity: p.capacity, tree: p.tree, parent: p}); err != nil {
		return err
	}
	p.children++
	return nil
}

// Commit merges a file into its parent and removes it. What was chained on the child is chained on
// the parent then. ErrInUse says that the parent has other children, which must not see the
// child's data. The stamps of change tracking move with the data.
func (s *Store) Commit(child string) error {
	c, err := s.get(child, true)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	defer c.tree.mu.Unlock()
	p := c.parent
	if p == nil {
		return fmt.Errorf("commit %s: %w: it has no parent", child, ErrNotExist)
	}
	if p.children != 1 {
		return fmt.Errorf("commit %s: %s: %w", child, p.name, ErrInUse)
	}
	merged, rest := p.overlay, c.overlay
	if p.overlay.blocks.count < c.overlay.blocks.count {
		merged, rest = rest, merged // copy the smaller part
	}
	if err := merged.absorb(rest, merged == p.overlay); err != nil {
		return fmt.Errorf("commit %s: %w", child, err)
	}
	p.overlay, c.overlay = merged, rest
	p.capacity, p.children, c.removed = c.capacity, c.children, true
	s.mu.Lock()
	delete(s.files, child)
	for _, f := range s.files {
		if f.parent == c {
			f.parent = p
		}
	}
	s.mu.Unlock()
	return c.overlay.remove()
}

// Remove deletes a file that has no children.
func (s *Store) Remove(name string) error {
	f, err := s.get(name, true)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	defer f.tree.mu.Unlock()
	if f.children > 0 {
		return fmt.Errorf("remove %s: %w", name, ErrInUse)
	}
	if f.parent != nil {
		f.parent.children--
	}
	s.mu.Lock()
	delete(s.files, name)
	s.mu.Unlock()
	if err := f.discard(); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// Rename gives a file another name. Its place in the chain stays.
func (s *Store) Rename(from, to string) error {
	f, err := s.get(from, true)
	if err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	defer f.tree.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[to] != nil {
		return fmt.Errorf("rename %s to %s: %w", from, to, ErrExist)
	}
	delete(s.files, from)
	f.name = to
	s.files[to] = f
	return nil
}

// Extend makes a disk larger; the new part reads as zero. A frozen file can't be extended
// (ErrFrozen), and no disk can be made smaller (ErrCapacity).
func (s *Store) Extend(name string, capacity int64) error {
	f, err := s.get(name, true)
	if err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	defer f.tree.mu.Unlock()
	if err := checkCapacity(capacity); err != nil {
		return fmt.Errorf("extend %s: %w", name, err)
	}
	if capacity < f.capacity {
		return fmt.Errorf("extend %s: %w: %d is below the present %d", name, ErrCapacity, capacity, f.capacity)
	}
	if f.children > 0 {
		return fmt.Errorf("extend %s: %w", name, ErrFrozen)
	}
	f.capacity = capacity
	return nil
}

// Clone makes an independent disk with the content that from has now. The blocks of a seed are
// shared, everything else is copied.
func (s *Store) Clone(from, to string) error {
	src, err := s.get(from, false)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	defer src.tree.mu.RUnlock()
	dst := &file{name: to, capacity: src.capacity, tree: &tree{epoch: 1}}
	root := src
	for root.parent != nil {
		root = root.parent
	}
	if dst.seed = root.seed; dst.seed != nil {
		dst.seed.acquire()
	}
	// Nobody can reach the clone before it is complete: its tree is locked until then.
	dst.tree.mu.Lock()
	defer dst.tree.mu.Unlock()
	if err := s.add("clone", dst); err != nil {
		if dst.seed != nil {
			err = errors.Join(err, dst.seed.release())
		}
		return err
	}
	if err := src.copyOverlays(dst.overlay); err != nil {
		s.mu.Lock()
		delete(s.files, to)
		s.mu.Unlock()
		return errors.Join(fmt.Errorf("clone %s to %s: %w", from, to, err), dst.discard())
	}
	return nil
}

// Stat describes a file.
func (s *Store) Stat(name string) (Info, error) {
	f, err := s.get(name, false)
	if err != nil {
		return Info{}, fmt.Errorf("stat: %w", err)
	}
	defer f.tree.mu.RUnlock()
	f.mu.RLock()
	defer f.mu.RUnlock()
	i := f.info()
	i.AllocatedBytes = f.allocated()
	return i, nil
}

// Shape is Stat without AllocatedBytes, which takes time.
func (s *Store) Shape(name string) (Info, error) {
	f, err := s.get(name, false)
	if err != nil {
		return Info{}, fmt.Errorf("stat: %w", err)
	}
	defer f.tree.mu.RUnlock()
	return f.info(), nil
}

// info describes a file without what it holds. The caller holds the tree's lock.
func (f *file) info() Info {
	i := Info{Capacity: f.capacity, Children: f.children, Disk: f.tree.id}
	if f.parent != nil {
		i.Parent = f.parent.name
	}
	return i
}

// Names lists the files in alphabetical order.
func (s *Store) Names() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.files))
	for n := range s.files {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
