package hypervisortest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A Point is a moment in the work of a Fake at which something can be made to happen: the name of a
// method, and behind a colon the phase: nothing is done yet (before), what the method does is done
// (after), in the middle of a disk's data (during).
type Point string

// The points of a Fake.
const (
	BeforeFindVM           Point = "FindVM:before"
	BeforeVMByInstanceUUID Point = "VMByInstanceUUID:before"
	BeforeVMExists         Point = "VMExists:before"
	BeforeCreateSnapshot   Point = "CreateSnapshot:before"
	AfterCreateSnapshot    Point = "CreateSnapshot:after" // the error comes with the ID
	BeforeSnapshots        Point = "Snapshots:before"
	BeforeSnapshotsBelow   Point = "SnapshotsBelow:before"
	BeforeSnapshotExists   Point = "SnapshotExists:before"
	BeforeRenameSnapshot   Point = "RenameSnapshot:before"
	BeforeRemoveSnapshot   Point = "RemoveSnapshot:before"
	AfterRemoveSnapshot    Point = "RemoveSnapshot:after"
	BeforeVMOfSnapshot     Point = "VMOfSnapshot:before"
	BeforeRevertChanges    Point = "RevertChanges:before"
	BeforeRevertToSnapshot Point = "RevertToSnapshot:before"
	AfterRevertToSnapshot  Point = "RevertToSnapshot:after" // the VM comes with the error
	BeforeConsolidate      Point = "Consolidate:before"
	BeforePowerOn          Point = "PowerOn:before"
	BeforeShutDownGuest    Point = "ShutDownGuest:before"
	DuringShutDownGuest    Point = "ShutDownGuest:during" // the guest was told; it shuts down after the method returned
	BeforePowerOff         Point = "PowerOff:before"
	BeforeWatchGuest       Point = "WatchGuest:before"
	DuringWatchGuest       Point = "WatchGuest:during" // before each wait for a change
	BeforeScreenshot       Point = "Screenshot:before"
	BeforeOpenPointInTime  Point = "OpenPointInTime:before"
	DuringOpenPointInTime  Point = "OpenPointInTime:during" // the temporary snapshot exists
	BeforeOpenDisk         Point = "OpenDisk:before"
	BeforeChangedAreas     Point = "OpenDisk:changed" // an error is one of listing what changed: no error of OpenDisk
	DuringRead             Point = "Extents:during"   // before each extent, and once before the end
	BeforeClose            Point = "Close:before"     // the temporary snapshot stays
	BeforeCheckRestore     Point = "CheckRestore:before"
	BeforeStartRestore     Point = "StartRestore:before"
	DuringStartRestore     Point = "StartRestore:during" // the VM in the making exists
	BeforeWriteDisk        Point = "WriteDisk:before"
	DuringWriteDisk        Point = "WriteDisk:during" // before each extent that is stored
	AfterWriteDisk         Point = "WriteDisk:after"
	BeforeCommit           Point = "Commit:before"
	AfterCommit            Point = "Commit:after" // all is done but the answer is lost: Abort still removes the VM
	BeforeAbort            Point = "Abort:before" // the VM in the making stays, or the journal
	BeforeCleanUpRestores  Point = "CleanUpRestores:before"
	BeforeDestroyVM        Point = "DestroyVM:before"
	BeforeCheckPrivileges  Point = "CheckPrivileges:before"

	BeforeCheckInPlace       Point = "CheckInPlace:before"
	BeforeStartInPlace       Point = "StartInPlace:before"
	DuringStartInPlace       Point = "StartInPlace:during" // the journal is written
	BeforeSwap               Point = "Swap:before"
	DuringSwap               Point = "Swap:during" // the VM is off and has its own disks
	AfterSwap                Point = "Swap:after"  // the VM has the restored disks: the error is a *SwappedError
	BeforeBack               Point = "Back:before"
	BeforeFinish             Point = "Finish:before"
	BeforeInterruptedInPlace Point = "InterruptedInPlace:before"
	BeforeRecoverInPlace     Point = "RecoverInPlace:before"
	DuringRecoverInPlace     Point = "RecoverInPlace:during" // the journal is the caller's
	BeforeHolds              Point = "Holds:before"
	BeforeKeptDisks          Point = "KeptDisks:before"
	BeforeForgetKept         Point = "ForgetKept:before"
	BeforeDeleteReplaced     Point = "DeleteReplaced:before"
)

// A Fault makes something happen at a point.
type Fault struct {
	At    Point
	Skip  int // so many times nothing happens at first
	Count int // then so many times it does; zero means once
	Do    func(ctx context.Context)
	Err   error // returned, wrapped; nil: the method goes on, unless its context ended meanwhile
}

// faults are the faults of a Fake. One that is never hit fails the test: it tests nothing.
type faults struct {
	mu   sync.Mutex
	all  []*Fault
	hits map[*Fault]int
	seen map[Point]int

	denied map[hypervisor.Operation]bool // what the user may not do
}

func newFaults(t testing.TB) *faults {
	f := &faults{hits: map[*Fault]int{}, seen: map[Point]int{}, denied: map[hypervisor.Operation]bool{}}
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, fault := range f.all {
			if f.hits[fault] == 0 {
				t.Errorf("the fault at %s was never hit", fault.At)
			}
		}
	})
	return f
}

func (f *faults) add(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault.Count == 0 {
		fault.Count = 1
	}
	f.all = append(f.all, &fault)
}

// at is called at every point. It returns what the method has to return there: the fault's error,
// or that of the context.
func (f *faults) at(ctx context.Context, p Point) error {
	f.mu.Lock()
	f.seen[p]++
	var hit *Fault
	for _, fault := range f.all {
		if fault.At != p || hit != nil {
			continue
		}
		if fault.Skip > 0 {
			fault.Skip--
			continue
		}
		if f.hits[fault] < fault.Count {
			f.hits[fault]++
			hit = fault
		}
	}
	operation := privileged[p]
	denied := f.denied[operation]
	f.mu.Unlock()
	if denied {
		return fmt.Errorf("%s: %w", p, &hypervisor.PermissionError{Privilege: string(operation), Object: FakeServer})
	}
	if hit != nil {
		if hit.Do != nil {
			hit.Do(ctx)
		}
		if hit.Err != nil {
			return fmt.Errorf("%s: %w", p, hit.Err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}
