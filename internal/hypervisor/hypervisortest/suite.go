package hypervisortest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A Harness is what the suite needs of an implementation and of the server behind it. Every test
// gets a server of its own.
type Harness struct {
	Hypervisor hypervisor.Hypervisor

	// Connect makes another connection to the same server. Closing it is the nearest that a test can
	// come to the death of the process that owns it: what it started goes on without it.
	Connect func(t *testing.T) hypervisor.Hypervisor

	// AddVM makes a VM on the server.
	AddVM func(t *testing.T, spec VMSpec)

	// AddTwin makes a VM of the same name as an existing one in another place of the inventory.
	// Nil: the server can't hold two.
	AddTwin func(t *testing.T, name string)

	// WriteDisk plays the guest: it writes to the n-th disk of a VM.
	WriteDisk func(t *testing.T, vm string, n int, p []byte, off int64)

	// ReadDisk reads the n-th disk of a VM as its guest sees it.
	ReadDisk func(t *testing.T, vm string, n int) []byte

	// Leftovers names what is on the server and belongs to nobody: snapshots whose name begins with
	// TemporaryPrefix, VMs in the making, leases, running tasks, files without a VM.
	Leftovers func(t *testing.T) []string

	// Interrupt arranges that fn is called while the next call of a method is under way, when the
	// server has begun to carry it out. It reports whether it can do that for this method.
	Interrupt func(t *testing.T, method Method, fn func()) bool

	// Deny makes a connection of a user who may do everything but one operation. Nil: the server has but one
	// user.
	Deny func(t *testing.T, operation hypervisor.Operation) hypervisor.Hypervisor

	// Sabotage does what people do to VMs.
	Sabotage Saboteur
}

// TemporaryPrefix begins the names of the points in time that the suite opens.
const TemporaryPrefix = "suite-temporary-"

// A Method is a method of the port that can be interrupted.
type Method string

// The methods that a Harness is asked to interrupt.
const (
	CreateSnapshot   Method = "CreateSnapshot"
	RemoveSnapshot   Method = "RemoveSnapshot"
	RenameSnapshot   Method = "RenameSnapshot"
	RevertToSnapshot Method = "RevertToSnapshot"
	Consolidate      Method = "Consolidate"
	PowerOn          Method = "PowerOn"
	PowerOff         Method = "PowerOff"
	ShutDownGuest    Method = "ShutDownGuest"
	OpenPointInTime  Method = "OpenPointInTime"
	ReadDisk         Method = "ReadDisk"
	StartRestore     Method = "StartRestore"
	WriteDisk        Method = "WriteDisk"
	Commit           Method = "Commit"
	DestroyVM        Method = "DestroyVM"
)

// Run checks an implementation of the port. newHarness makes a server for one test and a connection
// to it, and registers what closes them. Of several ways to do the same, all but one may be checked with
// those tests only whose names begin with one of some words.
func Run(t *testing.T, newHarness func(t *testing.T) Harness, words ...string) {
	for _, test := range slices.Concat(findTests, snapshotTests, revertTests, consolidateTests, pointInTimeTests, restoreTests, inPlaceTests, powerTests, cancelTests, trackingTests, privilegeTests) {
		begins := func(word string) bool { return strings.HasPrefix(test.name, word) }
		if len(words) > 0 && !slices.ContainsFunc(words, begins) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &suite{Harness: newHarness(t)}
			test.run(t, s)
			if left := s.Leftovers(t); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

type suiteTest struct {
	name string
	run  func(t *testing.T, s *suite)
}

// A suite is one test's server.
type suite struct {
	Harness
}

// Capacities of the disks of the suite's VMs: not whole numbers of megabytes.
var capacities = []int{5<<20 + 12<<10, 2<<20 + 512}

// pattern is the content of a disk: data, holes, and zeros that were written.
func pattern(seed uint64, capacity int) []byte {
	b := make([]byte, capacity)
	r := rand.New(rand.NewPCG(seed, 1))
	data := rand.NewChaCha8([32]byte{byte(seed)})
	for off := 0; off < capacity; off += 256 << 10 {
		if r.IntN(2) == 0 {
			continue
		}
		_, _ = data.Read(b[off:min(off+r.IntN(256<<10), capacity)]) // never fails
	}
	copy(b[capacity-512:], "the last sector")
	return b
}

// vm makes a running VM with two disks and finds it.
func (s *suite) vm(t *testing.T, name string) *hypervisor.VM {
	t.Helper()
	return s.add(t, VMSpec{Name: name, Disks: [][]byte{pattern(1, capacities[0]), pattern(2, capacities[1])}})
}

func (s *suite) add(t *testing.T, spec VMSpec) *hypervisor.VM {
	t.Helper()
	s.AddVM(t, spec)
	vm, err := s.Hypervisor.FindVM(t.Context(), hypervisor.VMRef(spec.Name))
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func (s *suite) find(t *testing.T, uuid string) *hypervisor.VM {
	t.Helper()
	vm, err := s.Hypervisor.VMByInstanceUUID(t.Context(), uuid)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func (s *suite) snapshots(t *testing.T, vm *hypervisor.VM) []hypervisor.Snapshot {
	t.Helper()
	all, err := s.Hypervisor.Snapshots(t.Context(), vm.ID)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (s *suite) snapshot(t *testing.T, vm *hypervisor.VM, spec hypervisor.SnapshotSpec) hypervisor.Snapshot {
	t.Helper()
	id, err := s.Hypervisor.CreateSnapshot(t.Context(), vm.ID, spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range s.snapshots(t, vm) {
		if got.ID == id {
			return got
		}
	}
	t.Fatalf("snapshot %s is not listed", id)
	return hypervisor.Snapshot{}
}

// disks reads all disks of a VM as its guest sees them.
func (s *suite) disks(t *testing.T, name string) [][]byte {
	t.Helper()
	all := make([][]byte, len(capacities))
	for n := range all {
		all[n] = s.ReadDisk(t, name, n)
	}
	return all
}

// open opens a point in time, which is closed when the test ends if it wasn't before.
func (s *suite) open(t *testing.T, vm *hypervisor.VM, spec hypervisor.PointInTimeSpec) hypervisor.PointInTime {
	t.Helper()
	spec.Name = TemporaryPrefix + vm.Name
	p, err := s.Hypervisor.OpenPointInTime(t.Context(), vm.ID, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.WithoutCancel(t.Context())) }) // the test itself looks at the first error
	return p
}

func closePoint(t *testing.T, p hypervisor.PointInTime) {
	t.Helper()
	if err := p.Close(t.Context()); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// readAll reads all disks of a point in time at once, and checks that the sources keep to the order
// of their extents.
func readAll(t *testing.T, p hypervisor.PointInTime) [][]byte {
	t.Helper()
	disks := p.Config().Summary.Disks
	all, errs := make([][]byte, len(disks)), make([]error, len(disks))
	var group sync.WaitGroup
	for i, d := range disks {
		group.Go(func() { all[i], errs[i] = readDisk(t.Context(), p, d.Key) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return all
}

func readDisk(ctx context.Context, p hypervisor.PointInTime, key hypervisor.DiskKey) ([]byte, error) {
	src, err := p.OpenDisk(ctx, key, hypervisor.DiskRequest{})
	if err != nil {
		return nil, err
	}
	b, end := make([]byte, src.Capacity()), int64(0)
	err = src.Extents(ctx, func(off int64, data []byte) error {
		if off < end || off+int64(len(data)) > int64(len(b)) {
			return errors.New("an extent is out of order or beyond the end of the disk")
		}
		end = off + int64(len(data))
		copy(b[off:], data)
		return nil
	})
	return b, err
}

func wantBytes(t *testing.T, what string, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d disks, want %d", what, len(got), len(want))
	}
	for n := range want {
		if bytes.Equal(got[n], want[n]) {
			continue
		}
		at := 0
		for at < min(len(got[n]), len(want[n])) && got[n][at] == want[n][at] {
			at++
		}
		t.Errorf("%s: disk %d differs at byte %d; %d bytes, want %d", what, n, at, len(got[n]), len(want[n]))
	}
}

// bytesSource is a disk in memory.
type bytesSource []byte

func (b bytesSource) Capacity() int64 { return int64(len(b)) }

func (b bytesSource) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	const step = 100_000 // aligned to nothing
	for off := 0; off < len(b); off += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		data := slices.Clone(b[off:min(off+step, len(b))])
		if disk.IsZero(data) {
			continue
		}
		if err := yield(int64(off), data); err != nil {
			return err
		}
	}
	return nil
}

// failingSource fails in the middle.
type failingSource struct {
	bytesSource
	err error
}

func (f failingSource) Extents(ctx context.Context, yield func(offset int64, data []byte) error) error {
	extents := 0
	err := f.bytesSource.Extents(ctx, func(off int64, data []byte) error {
		if extents++; extents > 2 {
			return f.err
		}
		return yield(off, data)
	})
	return err
}

func wantNotFound(t *testing.T, what string, err error) {
	t.Helper()
	var notFound *hypervisor.VMNotFoundError
	if !errors.As(err, &notFound) {
		t.Errorf("%s: got error %v, want one that says that there is no such VM", what, err)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func upper[S ~string](s S) S { return S(strings.ToUpper(string(s))) }
