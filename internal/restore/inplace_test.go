package restore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
)

// newChangedScene is a scene whose VM has written to its disks since the backup. own is what they hold.
func newChangedScene(t *testing.T) (s *scene, own [][]byte) {
	t.Helper()
	s = newScene(t)
	for i := range s.disks {
		if err := s.hv.WriteDisk(s.vm.ID, i, bytes.Repeat([]byte("since the backup"), 5000), int64(i+1)<<20); err != nil {
			t.Fatal(err)
		}
		own = append(own, s.hv.DiskBytes(s.vm.ID, i))
	}
	return s, own
}

func (s *scene) inPlace() restore.Request {
	return restore.Request{BackupID: s.id, InPlace: &restore.InPlace{VM: "web"}}
}

// wantOwn makes sure that the VM is as if there had been no restore.
func (s *scene) wantOwn(t *testing.T, own [][]byte, power hypervisor.PowerState) {
	t.Helper()
	vm, err := s.hv.FindVM(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range own {
		if !bytes.Equal(s.hv.DiskBytes(vm.ID, i), want) {
			t.Errorf("disk %d has other bytes than before", i)
		}
		if vm.Disks[i] != s.vm.Disks[i] {
			t.Errorf("disk %d is %+v, was %+v", i, vm.Disks[i], s.vm.Disks[i])
		}
	}
	if vm.PowerState != power || vm.CPUs != s.vm.CPUs {
		t.Errorf("the VM is %s with %d CPUs, want %s with %d", vm.PowerState, vm.CPUs, power, s.vm.CPUs)
	}
	s.wantTidy(t)
}

// wantTidy makes sure that there is nothing but the VM and its disks.
func (s *scene) wantTidy(t *testing.T) {
	t.Helper()
	if left, loose := s.hv.Leftovers(""), s.hv.LooseDisks(); len(left)+len(loose) > 0 || s.hv.VMs() != 1 {
		t.Errorf("left behind: %v, disks %v; %d VMs", left, loose, s.hv.VMs())
	}
}

// restoreInPlace restores, and expects the VM to be what was backed up.
func (s *scene) restoreInPlace(t *testing.T, r restore.Request, power hypervisor.PowerState) *restore.Result {
	t.Helper()
	result, err := s.m.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	s.wantDisks(t, s.vm.ID)
	if vm := result.VM; vm.PowerState != power || vm.InstanceUUID != s.vm.InstanceUUID || vm.ID != s.vm.ID {
		t.Errorf("the VM is %+v, want %s", vm, power)
	}
	for i, d := range result.Disks {
		if d.Path == s.vm.Disks[i].Path || d.Path != result.VM.Disks[i].Path || d.RestoredBytes == 0 || d.Digest == "" {
			t.Errorf("disk %+v", d)
		}
	}
	if result.CompletedAt.IsZero() || result.RestoredBytes == 0 {
		t.Errorf("completed at %s, %d bytes", result.CompletedAt, result.RestoredBytes)
	}
	return result
}

func TestRestoreInPlace(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.CPUs = 7 })
	if warnings, err := s.m.Check(t.Context(), s.inPlace()); err != nil || len(warnings) > 0 {
		t.Errorf("check: %q, %v", warnings, err)
	}
	r := s.inPlace()
	r.InPlace.VM = "" // the VM of the backup
	r.Verify = true
	result := s.restoreInPlace(t, r, hypervisor.PoweredOn)
	if len(result.Warnings) > 0 || len(result.Replaced) > 0 || !result.Verified || result.VM.CPUs != s.vm.CPUs {
		t.Errorf("result %+v", result)
	}
	if s.hv.Seen(hypervisortest.BeforeOpenPointInTime) != 1 {
		t.Error("nothing was read back")
	}
	s.wantTidy(t)
}

func TestRestoreInPlace_keepHardware(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.CPUs = 7 })
	r := s.inPlace()
	r.InPlace.KeepHardware = true
	if result := s.restoreInPlace(t, r, hypervisor.PoweredOn); result.VM.CPUs != 7 || result.Verified {
		t.Errorf("%+v", result)
	}
}

func TestRestoreInPlace_power(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before hypervisor.PowerState // the backup is of a running VM
		ask    restore.Power
		want   hypervisor.PowerState
	}{
		"as it was, on":        {hypervisor.PoweredOn, "", hypervisor.PoweredOn},
		"as it was, off":       {hypervisor.PoweredOff, "", hypervisor.PoweredOff},
		"as it was, suspended": {hypervisor.Suspended, restore.PowerAsBefore, hypervisor.PoweredOff},
		"as captured":          {hypervisor.PoweredOff, restore.PowerAsCaptured, hypervisor.PoweredOn},
		"on":                   {hypervisor.PoweredOff, restore.PowerOn, hypervisor.PoweredOn},
		"off":                  {hypervisor.PoweredOn, restore.PowerOff, hypervisor.PoweredOff},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, own := newChangedScene(t)
			s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.PowerState = c.before })
			r := s.inPlace()
			r.Power, r.InPlace.PowerOff = c.ask, true
			result := s.restoreInPlace(t, r, c.want)
			if c.want == hypervisor.PoweredOff { // what nobody has seen run doesn't cost what was there before
				s.wantKept(t, result, own)
			}
			s.wantTidy(t)

			s, _ = newChangedScene(t)
			s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.PowerState = c.before })
			r = s.inPlace()
			r.Power, r.InPlace.PowerOff, r.Verify = c.ask, true, true
			if result = s.restoreInPlace(t, r, c.want); len(result.Replaced) > 0 {
				t.Errorf("%v are kept although the disks were read back", result.Replaced)
			}
			s.wantTidy(t)
		})
	}
}

// Some disks come back, the others stay as they are.
func TestRestoreInPlace_someDisks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Hard disk 2", "SCSI0:1", "uuid"} {
		s, own := newChangedScene(t)
		r := s.inPlace()
		r.Verify = true
		r.Disks = []string{name, "scsi0:1"} // one disk, named twice
		if name == "uuid" {
			r.Disks[0] = strings.ToUpper(s.vm.Disks[1].UUID)
		}
		result, err := s.m.Restore(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.hv.DiskBytes(s.vm.ID, 0), own[0]) || !bytes.Equal(s.hv.DiskBytes(s.vm.ID, 1), s.disks[1]) {
			t.Errorf("%s: the first disk is not the VM's own, or the second not the restored one", name)
		}
		if len(result.Disks) != 1 || result.Disks[0].Label != "Hard disk 2" || result.VM.Disks[0] != s.vm.Disks[0] {
			t.Errorf("%s: restored %+v", name, result.Disks)
		}
		s.wantTidy(t)
	}
}

func TestRestoreInPlace_keepsReplaced(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	r := s.inPlace()
	r.InPlace.KeepReplacedDisks = 24 * time.Hour
	result := s.restoreInPlace(t, r, hypervisor.PoweredOn)
	if len(result.Replaced) != 2 || !result.ReplacedUntil.Equal(result.CompletedAt.Add(24*time.Hour)) {
		t.Fatalf("replaced %+v until %s, completed at %s", result.Replaced, result.ReplacedUntil, result.CompletedAt)
	}
	for i, d := range result.Replaced {
		if !bytes.Equal(s.hv.LooseDisk(d.Path), own[i]) || d.Label != s.vm.Disks[i].Label || d.Now != result.VM.Disks[i].Path {
			t.Errorf("replaced %+v", d)
		}
	}
	if left := s.hv.Leftovers(""); len(left) > 0 {
		t.Errorf("left behind %v", left)
	}
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeDeleteReplaced, Err: errBroken})
	if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); !errors.Is(err, errBroken) {
		t.Errorf("got error %v", err)
	}
	for range 2 { // those that are gone are no error
		if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); err != nil {
			t.Error(err)
		}
	}
	s.wantTidy(t)
	s.wantDisks(t, s.vm.ID)
	inUse := []hypervisor.Replaced{{Path: result.VM.Disks[0].Path}}
	if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, inUse); err == nil {
		t.Error("a disk in use was deleted")
	}
	s.hv.Lose(s.vm.ID)
	var gone *hypervisor.VMNotFoundError
	if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, result.Replaced); !errors.As(err, &gone) {
		t.Errorf("of a VM that is gone: %v", err)
	}
	if err := s.m.DeleteReplaced(t.Context(), s.vm.InstanceUUID, nil); err != nil {
		t.Errorf("nothing to delete: %v", err)
	}
}

func TestRestoreInPlace_refused(t *testing.T) {
	t.Parallel()
	s, own := newChangedScene(t)
	other := s.hv.AddVM(hypervisortest.VMSpec{Name: "other", Disks: s.disks})
	small := s.hv.AddVM(hypervisortest.VMSpec{Name: "small", Disks: s.disks[1:]})
	if _, err := s.hv.CreateSnapshot(t.Context(), other.ID, hypervisor.SnapshotSpec{Name: "mine"}); err != nil {
		t.Fatal(err)
	}
	place := func(edit func(*restore.Request)) restore.Request {
		r := s.inPlace()
		edit(&r)
		return r
	}
	for name, c := range map[string]struct {
		request restore.Request
		is      error
		as      any
		says    string
	}{
		"also a new VM":     {place(func(r *restore.Request) { r.NewVM = &restore.NewVM{} }), restore.ErrRequest, nil, ""},
		"no disk":           {place(func(r *restore.Request) { r.Disks = []string{} }), restore.ErrRequest, nil, "empty"},
		"unknown disk":      {place(func(r *restore.Request) { r.Disks = []string{"scsi0:1", "x"} }), restore.ErrRequest, nil, `no disk "x"; it holds: "Hard disk 1" (scsi0:0), "Hard disk 2" (scsi0:1)`},
		"unknown power":     {place(func(r *restore.Request) { r.Power = "x" }), restore.ErrRequest, nil, ""},
		"negative time":     {place(func(r *restore.Request) { r.InPlace.KeepReplacedDisks = -1 }), restore.ErrRequest, nil, ""},
		"negative shutdown": {place(func(r *restore.Request) { r.InPlace.ShutdownTimeout = -1 }), restore.ErrRequest, nil, ""},
		"no such VM":        {place(func(r *restore.Request) { r.InPlace.VM = "x" }), nil, new(*hypervisor.VMNotFoundError), ""},
		"another VM":        {place(func(r *restore.Request) { r.InPlace.VM = "other" }), restore.ErrOtherVM, nil, s.vm.InstanceUUID},
		"its snapshots": {place(func(r *restore.Request) { r.InPlace = &restore.InPlace{VM: "other", OtherVM: true} }),
			hypervisor.ErrSnapshotsInTheWay, nil, "mine"},
		"its disks": {place(func(r *restore.Request) { r.InPlace = &restore.InPlace{VM: "small", OtherVM: true} }),
			nil, new(*hypervisor.DiskMismatchError), "Hard disk 1"},
		"guest of a VM that stays off": {place(func(r *restore.Request) {
			r.Power, r.WaitForGuest = restore.PowerOff, &restore.WaitForGuest{}
		}), restore.ErrRequest, nil, ""},
	} {
		for what, do := range map[string]func() error{
			"restore": func() error { _, err := s.m.Restore(t.Context(), c.request); return err },
			"check":   func() error { _, err := s.m.Check(t.Context(), c.request); return err },
		} {
			err := do()
			if err == nil || c.is != nil && !errors.Is(err, c.is) || c.as != nil && !errors.As(err, c.as) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: got error %v", name, what, err)
			}
		}
	}
	s.hv.Lose(other.ID)
	s.hv.Lose(small.ID)
	s.wantOwn(t, own, hypervisor.PoweredOn)
	if n := s.hv.Seen(hypervisortest.BeforeStartInPlace); n > 0 {
		t.Errorf("%d restores were begun", n)
	}
}

// What is allowed explicitly.
func TestRestoreInPlace_allowed(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	other := s.hv.AddVM(hypervisortest.VMSpec{Name: "other", Disks: s.disks, NoAgent: true})
	if err := s.hv.WriteDisk(other.ID, 0, []byte("other"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.hv.CreateSnapshot(t.Context(), other.ID, hypervisor.SnapshotSpec{Name: "mine"}); err != nil {
		t.Fatal(err)
	}
	r := s.inPlace()
	r.InPlace = &restore.InPlace{VM: "other", OtherVM: true, RemoveSnapshots: true, PowerOff: true}
	result, err := s.m.Restore(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	s.wantDisks(t, other.ID)
	if vm := result.VM; vm.InstanceUUID != other.InstanceUUID || vm.PowerState != hypervisor.PoweredOn || len(result.Warnings) != 1 {
		t.Errorf("%+v, warnings %q", vm, result.Warnings)
	}
	if left := s.hv.Leftovers(""); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A VM that was registered anew has another instance UUID, and is the same nevertheless.
func TestRestoreInPlace_registeredAnew(t *testing.T) {
	t.Parallel()
	s, _ := newChangedScene(t)
	s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.InstanceUUID = "11111111-2222-3333-4444-555555555555" })
	if _, err := s.m.Restore(t.Context(), s.inPlace()); err != nil {
		t.Fatal(err)
	}
	s.wantDisks(t, s.vm.ID)
}

// A clone made by hand shares the BIOS UUID with the original. It is not the VM that was backed up, neither while
// the original exists nor when another clone does.
func TestRestoreInPlace_clone(t *testing.T) {
	t.Parallel()
	const anew = "11111111-2222-3333-4444-555555555555"
	for name, c := range map[string]struct {
		original string // its instance UUID now
		bios     string // of the clone
		into     string
		is       error // nil: it is restored into
		says     string
	}{
		"clone":            {"", "same", "clone", restore.ErrOtherVM, "web is"},
		"original":         {"", "same", "web", nil, ""},
		"one of two":       {anew, "same", "web", restore.ErrOtherVM, "more than one"},
		"without any UUID": {anew, "", "clone", restore.ErrOtherVM, ""},
		"the only one":     {anew, "another", "web", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newChangedScene(t)
			clone := s.hv.AddVM(hypervisortest.VMSpec{Name: "clone", Disks: s.disks})
			s.hv.Edit(clone.ID, func(vm *hypervisor.VM) {
				vm.BIOSUUID = c.bios
				if c.bios == "same" {
					vm.BIOSUUID = s.vm.BIOSUUID
				}
			})
			if c.original != "" {
				s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.InstanceUUID = c.original })
			}
			r := s.inPlace()
			r.InPlace.VM = hypervisor.VMRef(c.into)
			_, checked := s.m.Check(t.Context(), r)
			_, restored := s.m.Restore(t.Context(), r)
			for what, err := range map[string]error{"check": checked, "restore": restored} {
				if !errors.Is(err, c.is) || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: got error %v", what, err)
				}
			}
			if n := s.hv.Seen(hypervisortest.BeforeStartInPlace); (n > 0) != (c.is == nil) {
				t.Errorf("%d restores were begun", n)
			}
		})
	}
}

// Whether a VM that was registered anew is the one can't be told without an answer of the server.
func TestRestoreInPlace_cannotTell(t *testing.T) {
	t.Parallel()
	for _, fault := range []hypervisortest.Fault{
		{At: hypervisortest.BeforeVMByInstanceUUID, Err: hypervisor.ErrOutOfReach},
		{At: hypervisortest.BeforeFindVM, Err: errBroken, Skip: 1},
	} {
		s, own := newChangedScene(t)
		s.hv.Edit(s.vm.ID, func(vm *hypervisor.VM) { vm.InstanceUUID = "11111111-2222-3333-4444-555555555555" })
		s.hv.Fail(fault)
		if _, err := s.m.Restore(t.Context(), s.inPlace()); !errors.Is(err, fault.Err) || errors.Is(err, restore.ErrOtherVM) {
			t.Errorf("%s: got error %v", fault.At, err)
		}
		s.wantOwn(t, own, hypervisor.PoweredOn)
	}
}

// A repository that lost or changed data must not touch the VM, nor stop it.
func TestRestoreInPlace_writerLies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lie    func(ctx context.Context, src disk.Source) error
		verify bool
		want   any
	}{
		"reads nothing":      {func(context.Context, disk.Source) error { return nil }, false, nil},
		"swallows the error": {func(ctx context.Context, src disk.Source) error { return drain(ctx, src, errBroken) }, false, nil},
		"stores other bytes": {func(ctx context.Context, src disk.Source) error { return drain(ctx, src, nil) }, true, new(*restore.VerifyError)},
	} {
		s, own := newChangedScene(t)
		m := restore.New(lyingInPlace{s.hv, c.lie}, s.repo, slog.New(slog.DiscardHandler), time.Now)
		r := s.inPlace()
		r.Verify = c.verify
		result, err := m.Restore(t.Context(), r)
		if err == nil || result != nil || c.want != nil && !errors.As(err, c.want) {
			t.Errorf("%s: got %+v, %v", name, result, err)
		}
		if !c.verify && s.hv.Seen(hypervisortest.BeforeSwap) > 0 {
			t.Errorf("%s: the VM was touched", name)
		}
		s.wantOwn(t, own, hypervisor.PoweredOn)
	}
}

// drain reads a disk until yield has an error.
func drain(ctx context.Context, src disk.Source, err error) error {
	return src.Extents(ctx, func(int64, []byte) error { return err })
}

// A lyingInPlace writes zeros and says that it wrote the disk.
type lyingInPlace struct {
	*hypervisortest.Fake
	lie func(ctx context.Context, src disk.Source) error
}

func (h lyingInPlace) StartInPlace(ctx context.Context, spec hypervisor.InPlaceSpec) (hypervisor.InPlaceRestore, error) {
	r, err := h.Fake.StartInPlace(ctx, spec)
	return lyingInPlaceRestore{r, h.lie}, err
}

type lyingInPlaceRestore struct {
	hypervisor.InPlaceRestore
	lie func(ctx context.Context, src disk.Source) error
}

func (r lyingInPlaceRestore) WriteDisk(ctx context.Context, key hypervisor.DiskKey, src disk.Source) error {
	_ = r.lie(ctx, src)
	return r.InPlaceRestore.WriteDisk(ctx, key, zeros(src.Capacity()))
}
