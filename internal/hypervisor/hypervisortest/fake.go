// Package hypervisortest has a hypervisor that lives in memory, for the tests of what is built on
// the port, and the suite of tests that every implementation of the port passes.
package hypervisortest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// Names of what a Fake's inventory holds.
const (
	FakeServer = "fake"
	FakeFolder = "/DC0/vm"
	FakePool   = "/DC0/host/C0/Resources"
)

// FakeConfigFormat is the format of the configurations that a Fake captures.
const FakeConfigFormat = "fake/1"

// A VMSpec describes a VM to make for a test.
type VMSpec struct {
	Name       string
	Disks      [][]byte // their content; the capacity is the length
	PoweredOff bool
	NoAgent    bool // the guest's agent doesn't run
	Tracking   bool // change tracking is on
}

// A Fake is a hypervisor in memory, with bytes in its disks. It keeps to the port's contract and
// nothing more.
type Fake struct {
	*faults

	// QuiesceIgnored makes snapshots come back not quiesced although the guest was asked, as some
	// hypervisors do.
	QuiesceIgnored bool
	// QuiesceApplication makes quiesced snapshots application-consistent.
	QuiesceApplication bool
	// StayDropsMemory makes reverts after which VMs are to stay stopped leave them powered off, with no use
	// made of the memory in the snapshot.
	StayDropsMemory bool

	mu         sync.Mutex
	vms        map[hypervisor.VMID]*fakeVM
	hidden     map[hypervisor.VMID]bool // not to be found by its instance UUID
	making     map[hypervisor.VMID]*fakeRestore
	loose      map[string]*image // disks that no VM has, by path
	edited     chan struct{}     // closed when something about a VM changes; nil: nobody watches
	networks   []string
	datastores []string
	serial     int
	now        func() time.Time
}

type fakeVM struct {
	hypervisor.VM
	images    map[hypervisor.DiskKey]*image
	snapshots []*fakeSnapshot
	current   hypervisor.SnapshotID
	network   string
	connected bool
	clock     time.Duration // that its host is ahead
	deltas    bool          // that belong to no snapshot
	journal   *fakeJournal  // of a restore in place that has not ended
	kept      []hypervisor.Replaced
}

type fakeSnapshot struct {
	hypervisor.Snapshot
	images    map[hypervisor.DiskKey]*image
	config    hypervisor.VM // of the VM at that moment
	network   string
	connected bool
}

// NewFake makes a Fake with two networks, "net1" and "net2", and two datastores, "ds1" and "ds2".
// The test fails if a fault that was set is never hit.
func NewFake(t testing.TB) *Fake {
	return &Fake{
		faults:     newFaults(t),
		vms:        map[hypervisor.VMID]*fakeVM{},
		hidden:     map[hypervisor.VMID]bool{},
		making:     map[hypervisor.VMID]*fakeRestore{},
		loose:      map[string]*image{},
		networks:   []string{"net1", "net2"},
		datastores: []string{"ds1", "ds2"},
		now:        time.Now,
	}
}

// Fail sets a fault.
func (f *Fake) Fail(fault Fault) { f.add(fault) }

// Seen is how many times a point was reached.
func (f *Fake) Seen(p Point) int {
	f.faults.mu.Lock()
	defer f.faults.mu.Unlock()
	return f.seen[p]
}

func (f *Fake) next(prefix string) string {
	f.serial++
	return fmt.Sprintf("%s-%d", prefix, f.serial)
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// AddVM makes a VM.
func (f *Fake) AddVM(spec VMSpec) hypervisor.VM {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &fakeVM{images: map[hypervisor.DiskKey]*image{}, network: "net1", connected: true, VM: hypervisor.VM{
		ID: hypervisor.VMID(f.next("vm")), Name: spec.Name, Path: FakeFolder + "/" + spec.Name,
		BIOSUUID: newUUID(), InstanceUUID: newUUID(), Server: FakeServer, PowerState: hypervisor.PoweredOn,
		GuestID: "otherLinux64Guest", HardwareVersion: "1", GuestAgent: !spec.NoAgent, ChangeTracking: spec.Tracking, CPUs: 2, MemoryBytes: 2 << 30,
	}}
	if spec.PoweredOff {
		v.PowerState, v.GuestAgent = hypervisor.PoweredOff, false
	}
	for i, content := range spec.Disks {
		key := hypervisor.DiskKey(fmt.Sprint(2000 + i))
		m := newImage(int64(len(content)))
		if err := m.writeAt(content, 0); err != nil {
			panic(err) // the content is as long as the disk
		}
		v.images[key] = m
		v.Disks = append(v.Disks, hypervisor.Disk{
			Key: key, Label: fmt.Sprintf("Hard disk %d", i+1), Address: fmt.Sprintf("scsi0:%d", i), UUID: newUUID(),
			Capacity: m.capacity, Datastore: "ds1", Path: fmt.Sprintf("[ds1] %s/disk%d", spec.Name, i),
		})
	}
	f.vms[v.ID] = v
	return *v.copy()
}

// Edit changes what the Fake says about a VM.
func (f *Fake) Edit(id hypervisor.VMID, edit func(vm *hypervisor.VM)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v, err := f.vm(id); err == nil {
		edit(&v.VM)
		f.tell()
	}
}

// tell wakes up who watches guests. The caller holds the lock.
func (f *Fake) tell() {
	if f.edited != nil {
		close(f.edited)
		f.edited = nil
	}
}

// WriteDisk plays the guest, which writes to its disk.
func (f *Fake) WriteDisk(id hypervisor.VMID, n int, p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.vms[id]
	return v.images[v.Disks[n].Key].writeAt(p, off)
}

// DiskBytes is the content of a disk as the VM sees it.
func (f *Fake) DiskBytes(id hypervisor.VMID, n int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.vms[id]
	return v.images[v.Disks[n].Key].bytes()
}

// Network is the network of a VM's adapter and whether it connects at power-on.
func (f *Fake) Network(id hypervisor.VMID) (name string, connected bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		panic(err) // a mistake of the test
	}
	return v.network, v.connected
}

// Lose makes a VM disappear, as if somebody had deleted it.
func (f *Fake) Lose(id hypervisor.VMID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.vms, id)
}

// Hide makes a VM impossible to find by its instance UUID, as if the user might not see it.
func (f *Fake) Hide(id hypervisor.VMID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hidden[id] = true
}

// Leftovers names the VMs in the making, the restores in place that have not ended, and the snapshots whose
// name starts with prefix.
func (f *Fake) Leftovers(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var left []string
	for _, r := range f.making {
		left = append(left, "VM in the making "+r.vm.Name)
	}
	for _, v := range f.vms {
		if v.journal != nil {
			left = append(left, "journal of "+v.journal.runID+" in "+v.Name)
		}
		for _, s := range v.snapshots {
			if strings.HasPrefix(s.Name, prefix) {
				left = append(left, "snapshot "+s.Name+" of "+v.Name)
			}
		}
	}
	slices.Sort(left)
	return left
}

// VMs is how many VMs there are.
func (f *Fake) VMs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.vms)
}

// FindVM implements hypervisor.Finder.
func (f *Fake) FindVM(ctx context.Context, ref hypervisor.VMRef) (*hypervisor.VM, error) {
	if err := f.at(ctx, BeforeFindVM); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []*fakeVM
	for _, v := range f.vms {
		names := []string{string(v.ID), v.BIOSUUID, v.InstanceUUID, v.Name, v.Path}
		if slices.Contains(names, string(ref)) || slices.Contains(names[1:3], strings.ToLower(string(ref))) {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return nil, &hypervisor.VMNotFoundError{Ref: string(ref), Where: FakeServer}
	case 1:
		return found[0].copy(), nil
	}
	e := &hypervisor.AmbiguousVMError{Ref: ref}
	for _, v := range found {
		e.Matches = append(e.Matches, v.Path+" ("+string(v.ID)+")")
	}
	slices.Sort(e.Matches)
	return nil, e
}

// VMByInstanceUUID implements hypervisor.Finder.
func (f *Fake) VMByInstanceUUID(ctx context.Context, uuid string) (*hypervisor.VM, error) {
	if err := f.at(ctx, BeforeVMByInstanceUUID); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, v := range f.vms {
		if v.InstanceUUID == strings.ToLower(uuid) && !f.hidden[id] {
			return v.copy(), nil
		}
	}
	return nil, &hypervisor.VMNotFoundError{Ref: uuid, Where: FakeServer}
}

// IdentifyVM implements hypervisor.Finder.
func (f *Fake) IdentifyVM(ctx context.Context, uuid string) (*hypervisor.VMIdentity, error) {
	vm, err := f.VMByInstanceUUID(ctx, uuid)
	if err != nil {
		return nil, err
	}
	identity := vm.Identity()
	return &identity, nil
}

// VMExists implements hypervisor.Finder.
func (f *Fake) VMExists(ctx context.Context, id hypervisor.VMID) (bool, error) {
	if err := f.at(ctx, BeforeVMExists); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.vms[id]
	return ok, nil
}

func (v *fakeVM) copy() *hypervisor.VM {
	vm := v.VM
	vm.Disks, vm.Obstacles = slices.Clone(vm.Disks), slices.Clone(vm.Obstacles)
	return &vm
}

// vm finds a VM by its handle, also one in the making. The caller holds the lock.
func (f *Fake) vm(id hypervisor.VMID) (*fakeVM, error) {
	if v, ok := f.vms[id]; ok {
		return v, nil
	}
	if r, ok := f.making[id]; ok {
		return r.vm, nil
	}
	return nil, &hypervisor.VMNotFoundError{Ref: string(id), Where: FakeServer}
}

// PowerOn implements hypervisor.PowerController.
func (f *Fake) PowerOn(ctx context.Context, id hypervisor.VMID) error {
	return f.power(ctx, BeforePowerOn, id, hypervisor.PoweredOn)
}

// PowerOff implements hypervisor.PowerController.
func (f *Fake) PowerOff(ctx context.Context, id hypervisor.VMID) error {
	return f.power(ctx, BeforePowerOff, id, hypervisor.PoweredOff)
}

// ShutDownGuest implements hypervisor.PowerController. Where it fails after the guest was told, the
// guest shuts down nevertheless.
func (f *Fake) ShutDownGuest(ctx context.Context, id hypervisor.VMID) error {
	if err := f.at(ctx, BeforeShutDownGuest); err != nil {
		return err
	}
	f.mu.Lock()
	v, err := f.vm(id)
	if err == nil && v.PowerState == hypervisor.PoweredOn && !v.GuestAgent {
		err = fmt.Errorf("shut down %s: %w", v.Name, hypervisor.ErrGuestAgent)
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := f.at(ctx, DuringShutDownGuest); err != nil {
		return fmt.Errorf("shut down %s: %w: %w", id, hypervisor.ErrShuttingDown, err)
	}
	return f.setPower(id, hypervisor.PoweredOff)
}

func (f *Fake) power(ctx context.Context, p Point, id hypervisor.VMID, state hypervisor.PowerState) error {
	if err := f.at(ctx, p); err != nil {
		return err
	}
	return f.setPower(id, state)
}

func (f *Fake) setPower(id hypervisor.VMID, state hypervisor.PowerState) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.making[id]; ok && !r.verifying {
		return errors.New("the VM is in the making")
	}
	v, err := f.vm(id)
	if err != nil {
		return err
	}
	v.PowerState = state
	f.tell()
	return nil
}

// Server implements hypervisor.Hypervisor.
func (f *Fake) Server(context.Context) (string, error) { return FakeServer, nil }

// Close implements hypervisor.Hypervisor.
func (f *Fake) Close(context.Context) error { return nil }

var _ hypervisor.Hypervisor = (*Fake)(nil)
