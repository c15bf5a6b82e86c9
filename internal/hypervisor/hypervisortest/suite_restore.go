package hypervisortest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var restoreTests = []suiteTest{
	{"restore/original", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"}) // is no part of what is captured
		config, disks := s.capture(t, vm)
		spec := hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityOriginal, RunID: "run1"}
		var inUse *hypervisor.IdentityInUseError
		for what, err := range s.tryRestore(t, spec) {
			if !errors.As(err, &inUse) || inUse.VM != vm.Path {
				t.Errorf("%s while the original exists: %v", what, err)
			}
		}
		s.destroy(t, vm.ID)
		if warnings, err := s.Hypervisor.CheckRestore(t.Context(), spec); err != nil || len(warnings) > 0 {
			t.Fatalf("check: %q, %v", warnings, err)
		}
		got := s.restore(t, spec, disks)
		wantBytes(t, "restored", s.disks(t, "vm1"), disks)
		if got.Path != vm.Path || got.BIOSUUID != vm.BIOSUUID || got.InstanceUUID != vm.InstanceUUID || got.GuestID != vm.GuestID ||
			got.CPUs != vm.CPUs || got.MemoryBytes != vm.MemoryBytes || got.HardwareVersion != vm.HardwareVersion {
			t.Errorf("restored %+v, was %+v", got, vm)
		}
		for n, d := range got.Disks {
			if was := vm.Disks[n]; d.UUID != was.UUID || d.Address != was.Address || d.Label != was.Label || d.Capacity != was.Capacity || d.Datastore != was.Datastore {
				t.Errorf("disk %d: %+v, was %+v", n, d, was)
			}
		}
		if got.PowerState != hypervisor.PoweredOff || len(s.snapshots(t, got)) > 0 {
			t.Errorf("restored VM is %s with snapshots %v", got.PowerState, s.snapshots(t, got))
		}
		if err := s.Hypervisor.PowerOn(t.Context(), got.ID); err != nil || s.find(t, vm.InstanceUUID).PowerState != hypervisor.PoweredOn {
			t.Errorf("power on: %v", err)
		}
	}},
	{"restore/copy", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, disks := s.capture(t, vm)
		spec := hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy 1/2", Disconnect: true, RunID: "run1"}
		got := s.restore(t, spec, disks)
		wantBytes(t, "copy", s.disks(t, "copy 1/2"), disks)
		if got.Name != "copy 1/2" || got.BIOSUUID == vm.BIOSUUID || got.InstanceUUID == vm.InstanceUUID || got.ID == vm.ID {
			t.Errorf("copy %+v of %+v", got, vm)
		}
		for n, d := range got.Disks {
			if was := vm.Disks[n]; was.UUID != "" && d.UUID == was.UUID || d.Path == was.Path || d.Address != was.Address {
				t.Errorf("disk %d: %+v, was %+v", n, d, was)
			}
		}
		s.WriteDisk(t, "copy 1/2", 0, pattern(9, 1<<20), 0)
		wantBytes(t, "the original", s.disks(t, "vm1"), disks)
	}},
	{"restore/without a disk", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, disks := s.capture(t, vm, vm.Disks[0].Key)
		spec := hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1"}
		warnings, err := s.Hypervisor.CheckRestore(t.Context(), spec)
		if err != nil || !slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, vm.Disks[0].Label) }) {
			t.Errorf("check: %q, %v, want a warning that names the disk that is not there", warnings, err)
		}
		got, _ := s.restoreWarned(t, spec, disks)
		if len(got.Disks) != 1 || got.Disks[0].Address != vm.Disks[1].Address {
			t.Fatalf("disks %+v", got.Disks)
		}
		wantBytes(t, "copy", [][]byte{s.ReadDisk(t, "copy", 0)}, disks)
	}},
	{"restore/some disks", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, disks := s.capture(t, vm)
		names := func(warnings []string) bool {
			return slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, vm.Disks[0].Label) })
		}
		spec := hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1",
			Disks: []hypervisor.DiskKey{vm.Disks[1].Key}}
		got, _ := s.restoreWarned(t, spec, disks)
		if len(got.Disks) != 1 || got.Disks[0].Address != vm.Disks[1].Address || got.Disks[0].Capacity != vm.Disks[1].Capacity {
			t.Fatalf("disks %+v", got.Disks)
		}
		wantBytes(t, "copy", [][]byte{s.ReadDisk(t, "copy", 0)}, disks[1:])
		s.destroy(t, vm.ID)
		spec.Identity, spec.Name = hypervisor.IdentityOriginal, ""
		warnings, err := s.Hypervisor.CheckRestore(t.Context(), spec)
		if err != nil || !names(warnings) {
			t.Errorf("check of an original: %q, %v, want a warning that names the disk it goes without", warnings, err)
		}
		r := s.start(t, spec)
		if err := r.WriteDisk(t.Context(), vm.Disks[0].Key, bytesSource(disks[0])); err == nil {
			t.Error("a disk was written that the VM doesn't get")
		}
		if err := r.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	}},
	{"restore/refused", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, _ := s.capture(t, vm)
		garbage := config
		garbage.Format = "somebody's/7"
		var unavailable *hypervisor.NotAvailableError
		var nameInUse *hypervisor.NameInUseError
		for name, c := range map[string]struct {
			edit func(spec *hypervisor.RestoreSpec)
			ok   func(err error) bool
		}{
			"format":    {func(r *hypervisor.RestoreSpec) { r.Config = garbage }, func(err error) bool { return errors.Is(err, hypervisor.ErrConfigFormat) }},
			"name":      {func(r *hypervisor.RestoreSpec) { r.Name = "vm1" }, func(err error) bool { return errors.As(err, &nameInUse) }},
			"datastore": {func(r *hypervisor.RestoreSpec) { r.Datastore = "nothing" }, func(err error) bool { return errors.As(err, &unavailable) && unavailable.Kind == "datastore" }},
			"disk's datastore": {func(r *hypervisor.RestoreSpec) {
				r.DiskDatastores = map[hypervisor.DiskKey]string{vm.Disks[1].Key: "nothing"}
			}, func(err error) bool { return errors.As(err, &unavailable) && len(unavailable.Available) > 0 }},
			"no disk": {func(r *hypervisor.RestoreSpec) { r.Disks = []hypervisor.DiskKey{} }, func(err error) bool { return err != nil }},
			"unknown disk": {func(r *hypervisor.RestoreSpec) { r.Disks = []hypervisor.DiskKey{vm.Disks[0].Key, "nothing"} },
				func(err error) bool { return errors.As(err, &unavailable) && unavailable.Name == "nothing" }},
			"datastore of a disk that is left out": {func(r *hypervisor.RestoreSpec) {
				r.Disks = []hypervisor.DiskKey{vm.Disks[0].Key}
				r.DiskDatastores = map[hypervisor.DiskKey]string{vm.Disks[1].Key: vm.Disks[1].Datastore}
			}, func(err error) bool { return err != nil }},
			"folder": {func(r *hypervisor.RestoreSpec) { r.Folder = "/nowhere/nothing" }, func(err error) bool { return errors.As(err, &unavailable) }},
		} {
			spec := hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1"}
			c.edit(&spec)
			for what, err := range s.tryRestore(t, spec) {
				if !c.ok(err) {
					t.Errorf("%s, %s: got error %v", name, what, err)
				}
			}
		}
	}},
	{"restore/abort", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, disks := s.capture(t, vm)
		s.destroy(t, vm.ID)
		spec := hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityOriginal, RunID: "run1"}
		for _, written := range []int{0, 1, 2} {
			r := s.start(t, spec)
			for n, d := range config.Summary.Disks[:written] {
				if err := r.WriteDisk(t.Context(), d.Key, bytesSource(disks[n])); err != nil {
					t.Fatal(err)
				}
			}
			cancelled, cancel := context.WithCancel(t.Context())
			cancel()
			if err := r.Abort(cancelled); err != nil {
				t.Errorf("abort after %d disks: %v", written, err)
			}
			if err := r.Abort(t.Context()); err != nil {
				t.Errorf("abort again: %v", err)
			}
			if left := s.Leftovers(t); len(left) > 0 {
				t.Errorf("after %d disks: left behind: %q", written, left)
			}
		}
		s.restore(t, spec, disks)
		wantBytes(t, "restored", s.disks(t, "vm1"), disks)
	}},
	{"restore/not startable in the making", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, disks := s.capture(t, vm)
		r := s.start(t, hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1"})
		if err := r.WriteDisk(t.Context(), config.Summary.Disks[0].Key, bytesSource(disks[0])); err != nil {
			t.Fatal(err)
		}
		if err := s.Hypervisor.PowerOn(t.Context(), r.VM()); err == nil {
			t.Error("a VM in the making could be started")
		}
		if _, _, err := r.Commit(t.Context()); err == nil {
			t.Error("a VM could be finished without its second disk")
		}
		if err := r.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	}},
	{"restore/source fails", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, disks := s.capture(t, vm)
		r := s.start(t, hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1"})
		key := config.Summary.Disks[0].Key
		wantError(t, "write", r.WriteDisk(t.Context(), key, failingSource{bytesSource(disks[0]), errStop}), errStop)
		if err := r.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		r = s.start(t, hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run2"})
		if err := r.WriteDisk(t.Context(), key, bytesSource(disks[0][:1<<20])); err == nil {
			t.Error("a source of another capacity was written")
		}
		if err := r.WriteDisk(t.Context(), "nothing", bytesSource(disks[0])); err == nil {
			t.Error("a disk was written that there isn't")
		}
		if err := r.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	}},
	{"restore/clean up", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, _ := s.capture(t, vm)
		for _, run := range []string{"run1", "run2"} {
			killed := s.Connect(t)
			_, err := killed.StartRestore(t.Context(), hypervisor.RestoreSpec{
				Config: config, Identity: hypervisor.IdentityCopy, Name: "copy-" + run, RunID: run,
			})
			if err := errors.Join(err, killed.Close(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		for _, abandoned := range []string{"run1", "run2"} {
			// A server may hold for a while what a dead client was making, and may remove it by itself.
			poll := time.NewTicker(100 * time.Millisecond)
			defer poll.Stop()
			for left := true; left; {
				var seen []string
				removed, err := s.Hypervisor.CleanUpRestores(t.Context(), func(u hypervisor.Unfinished) bool {
					seen = append(seen, u.RunID)
					return u.RunID == abandoned
				})
				left = slices.Contains(seen, abandoned) && len(removed) == 0
				if err != nil || len(removed) > 1 || len(removed) == 1 && !slices.Contains(seen, abandoned) {
					t.Fatalf("%s: removed %q, %v; runs %q", abandoned, removed, err, seen)
				}
				if left {
					<-poll.C
				}
			}
		}
		if got := s.find(t, vm.InstanceUUID); got.ID != vm.ID {
			t.Errorf("the original is %+v", got)
		}
	}},
	{"restore/complete is nobody's leftover", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		config, disks := s.capture(t, vm)
		got := s.restore(t, hypervisor.RestoreSpec{Config: config, Identity: hypervisor.IdentityCopy, Name: "copy", RunID: "run1"}, disks)
		removed, err := s.Hypervisor.CleanUpRestores(t.Context(), func(hypervisor.Unfinished) bool { return true })
		if err != nil || len(removed) > 0 {
			t.Errorf("removed %q, %v", removed, err)
		}
		s.find(t, got.InstanceUUID)
		for range 2 {
			s.destroy(t, got.ID)
		}
		_, err = s.Hypervisor.VMByInstanceUUID(t.Context(), got.InstanceUUID)
		wantNotFound(t, "after it was destroyed", err)
	}},
}

// capture reads a VM's configuration and disks, but for those excluded.
func (s *suite) capture(t *testing.T, vm *hypervisor.VM, exclude ...hypervisor.DiskKey) (hypervisor.Config, [][]byte) {
	t.Helper()
	p := s.open(t, vm, hypervisor.PointInTimeSpec{Exclude: exclude})
	disks := readAll(t, p)
	closePoint(t, p)
	return p.Config(), disks
}

// start starts a restore, which is aborted when the test ends if it wasn't ended before.
func (s *suite) start(t *testing.T, spec hypervisor.RestoreSpec) hypervisor.Restore {
	t.Helper()
	r, err := s.Hypervisor.StartRestore(t.Context(), spec)
	if err != nil {
		t.Fatalf("start restore: %v", err)
	}
	t.Cleanup(func() { _ = r.Abort(context.WithoutCancel(t.Context())) }) // the test itself looks at the first error
	return r
}

// restore carries out a restore that brings back everything, so that there is nothing to warn of.
func (s *suite) restore(t *testing.T, spec hypervisor.RestoreSpec, disks [][]byte) *hypervisor.VM {
	t.Helper()
	vm, warnings := s.restoreWarned(t, spec, disks)
	if len(warnings) > 0 {
		t.Errorf("commit: %q", warnings)
	}
	return vm
}

// restoreWarned carries a restore out, all disks at once. Abort must then do nothing.
func (s *suite) restoreWarned(t *testing.T, spec hypervisor.RestoreSpec, disks [][]byte) (*hypervisor.VM, []string) {
	t.Helper()
	r := s.start(t, spec)
	errs := make([]error, len(disks))
	var group sync.WaitGroup
	for n, d := range spec.Config.Summary.Disks {
		if spec.Disks != nil && !slices.Contains(spec.Disks, d.Key) {
			continue
		}
		group.Go(func() { errs[n] = r.WriteDisk(t.Context(), d.Key, bytesSource(disks[n])) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("write disks: %v", err)
	}
	vm, warnings, err := r.Commit(t.Context())
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	if err := r.Abort(t.Context()); err != nil {
		t.Errorf("abort after commit: %v", err)
	}
	if found := s.find(t, vm.InstanceUUID); found.ID != vm.ID || found.ID != r.VM() {
		t.Errorf("committed %s, found %s", vm.ID, found.ID)
	}
	return vm, warnings
}

// tryRestore tries what must be refused.
func (s *suite) tryRestore(t *testing.T, spec hypervisor.RestoreSpec) map[string]error {
	t.Helper()
	_, checkErr := s.Hypervisor.CheckRestore(t.Context(), spec)
	r, startErr := s.Hypervisor.StartRestore(t.Context(), spec)
	if startErr == nil {
		_ = r.Abort(t.Context())
	}
	return map[string]error{"check": checkErr, "start": startErr}
}

func (s *suite) destroy(t *testing.T, vm hypervisor.VMID) {
	t.Helper()
	if err := s.Hypervisor.DestroyVM(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
}
