package backup_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress/progresstest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

func newTrackedVM(t *testing.T) (*hypervisortest.Fake, hypervisor.VM) {
	t.Helper()
	hv := hypervisortest.NewFake(t)
	return hv, hv.AddVM(hypervisortest.VMSpec{
		Name: "web", Tracking: true, Disks: [][]byte{content(1, capacity1), content(2, capacity2)},
	})
}

func write(t *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM, n int, text string, off int64) {
	t.Helper()
	if err := hv.WriteDisk(vm.ID, n, []byte(text), off); err != nil {
		t.Fatal(err)
	}
}

// take takes a backup and compares it with the disks as they are.
func take(t *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM, repo *repository.Repository, r backup.Request) *backup.Result {
	t.Helper()
	r.VM = hypervisor.VMRef(vm.InstanceUUID)
	result, err := newManager(hv, repo).Take(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := repo.Get(t.Context(), result.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range manifest.Disks {
		n := slices.IndexFunc(vm.Disks, func(of hypervisor.Disk) bool { return of.UUID == d.UUID })
		if !bytes.Equal(stored(t, repo, result.ID, d), hv.DiskBytes(vm.ID, n)) {
			t.Errorf("%s: the repository has other bytes than the disk had", d.Label)
		}
	}
	return result
}

func TestTake_incremental(t *testing.T) {
	t.Parallel()
	hv, vm := newTrackedVM(t)
	repo := openRepository(t)
	first := take(t, hv, vm, repo, backup.Request{}).Manifest
	if first.Incremental || first.Parent != "" || first.Disks[0].Tracking == "" || first.Disks[0].ReadBytes < 1<<20 {
		t.Errorf("the first backup: %+v", first)
	}
	parent := repository.ID("")
	for i := range 3 {
		write(t, hv, vm, 0, "changed", int64(i)<<20+100)
		got := take(t, hv, vm, repo, backup.Request{})
		m := got.Manifest
		if i > 0 && m.Parent != parent {
			t.Errorf("the parent is %s, want %s", m.Parent, parent)
		}
		parent = got.ID
		d := m.Disks
		if !m.Incremental || d[0].Parent != m.Parent || d[1].Parent != m.Parent || d[0].Incrementals != i+1 || len(got.Warnings) > 0 {
			t.Errorf("backup %d: %+v, warnings %q", i, m, got.Warnings)
		}
		if d[0].ChangedBytes != 1<<20 || d[0].ReadBytes == 0 || d[0].ReadBytes > 1<<20 || d[1].ReadBytes != 0 || m.ReadBytes != d[0].ReadBytes {
			t.Errorf("backup %d: read %d and %d bytes, %d of them changed, %d in sum", i, d[0].ReadBytes, d[1].ReadBytes, d[0].ChangedBytes, m.ReadBytes)
		}
	}
}

// What makes a backup read a disk in full, and what it says of that.
func TestTake_full(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		between func(t *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM)
		request backup.Request
		full    []bool // of each disk
		warning string // part of the only one; empty: there is none
		token   bool   // a later backup can be incremental
	}{
		"mode":     {request: backup.Request{Mode: backup.ModeFull}, full: []bool{true, true}, token: true},
		"ignored":  {request: backup.Request{ChangeTracking: hypervisor.TrackingIgnore}, full: []bool{true, true}},
		"nothing":  {full: []bool{false, false}, token: true},
		"no limit": {request: backup.Request{FullEvery: -1}, full: []bool{false, false}, token: true},
		"resized": {between: func(t *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM) {
			if err := hv.ResizeDisk(vm.ID, 1, capacity2+(1<<20)); err != nil {
				t.Fatal(err)
			}
		}, full: []bool{false, true}, warning: "Hard disk 2 (scsi0:1) of web was read in full, not only what changed: It had 3145728 bytes", token: true},
		"changes unknown": {between: func(_ *testing.T, hv *hypervisortest.Fake, _ hypervisor.VM) {
			hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeChangedAreas, Err: errBroken})
		}, warning: "The changed areas could not be listed", token: true},
		"another disk": {between: func(_ *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM) {
			hv.Edit(vm.ID, func(v *hypervisor.VM) { v.Disks[0].UUID = "6000c29a-0000-0000-0000-000000000001" })
		}, full: []bool{true, false}, token: true},
		"two disks of the same UUID": {between: func(_ *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM) {
			hv.Edit(vm.ID, func(v *hypervisor.VM) { v.Disks[0].UUID = v.Disks[1].UUID })
		}, full: []bool{true, true}, token: true},
		"another VM": {between: func(_ *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM) {
			hv.Edit(vm.ID, func(v *hypervisor.VM) { v.InstanceUUID = "5000c29a-0000-0000-0000-000000000001" })
		}, full: []bool{true, true}, token: true},
		"another server": {between: func(_ *testing.T, hv *hypervisortest.Fake, vm hypervisor.VM) {
			hv.Edit(vm.ID, func(v *hypervisor.VM) { v.Server = "other" })
		}, full: []bool{true, true}, token: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vm := newTrackedVM(t)
			repo := openRepository(t)
			m := newManager(hv, repo)
			c.request.VM = "web"
			if _, err := m.Take(t.Context(), backup.Request{VM: "web"}); err != nil {
				t.Fatal(err)
			}
			write(t, hv, vm, 0, "changed", 1<<20)
			if c.between != nil {
				c.between(t, hv, vm)
			}
			result, err := m.Take(t.Context(), c.request)
			if err != nil {
				t.Fatal(err)
			}
			full := 0
			for i, d := range result.Manifest.Disks {
				if d.Parent == "" {
					full++
				}
				if c.full != nil && (d.Parent == "") != c.full[i] || (d.Tracking != "") != c.token || (d.Parent == "") != (d.Incrementals == 0) {
					t.Errorf("disk %d: %+v", i, d)
				}
				if !bytes.Equal(stored(t, repo, result.ID, d), hv.DiskBytes(vm.ID, i)) {
					t.Errorf("disk %d: the repository has other bytes than the disk had", i)
				}
			}
			if result.Manifest.Incremental != (full < 2) || (result.Manifest.Parent != "") != (full < 2) || c.full == nil && full != 1 {
				t.Errorf("%d disks were read in full: %+v", full, result.Manifest)
			}
			if c.warning == "" && len(result.Warnings) > 0 || c.warning != "" && (len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], c.warning)) {
				t.Errorf("warnings %q, want %q", result.Warnings, c.warning)
			}
		})
	}
}

func TestTake_fullEvery(t *testing.T) {
	t.Parallel()
	hv, vm := newTrackedVM(t)
	repo := openRepository(t)
	var got []int
	for range 6 {
		got = append(got, take(t, hv, vm, repo, backup.Request{FullEvery: 2}).Manifest.Disks[0].Incrementals)
	}
	if !slices.Equal(got, []int{0, 1, 2, 0, 1, 2}) {
		t.Errorf("incremental reads in a row: %v", got)
	}
}

// A full read that is due finds what change tracking kept to itself.
func TestTake_fullReadFindsChange(t *testing.T) {
	t.Parallel()
	hv, vm := newTrackedVM(t)
	repo := openRepository(t)
	take(t, hv, vm, repo, backup.Request{})
	write(t, hv, vm, 0, "changed", 1<<20)
	take(t, hv, vm, repo, backup.Request{FullEvery: 1})
	write(t, hv, vm, 0, "changed again", 1<<20)
	if err := hv.WriteDiskUnnoticed(vm.ID, 1, []byte("x"), 2<<20); err != nil {
		t.Fatal(err)
	}
	got := take(t, hv, vm, repo, backup.Request{FullEvery: 1})
	if d := got.Manifest.Disks; got.Manifest.Incremental || d[0].Incrementals != 0 || d[1].Incrementals != 0 || d[1].Parent != "" {
		t.Errorf("disks %+v", d)
	}
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "Hard disk 2") || !strings.Contains(got.Warnings[0], "the block at 2097152 is not as in") {
		t.Errorf("warnings %q", got.Warnings)
	}
}

// A disk that the last backup left out is read from the last one that has it.
func TestTake_severalParents(t *testing.T) {
	t.Parallel()
	hv, vm := newTrackedVM(t)
	repo := openRepository(t)
	first := take(t, hv, vm, repo, backup.Request{})
	write(t, hv, vm, 1, "first", 0)
	write(t, hv, vm, 0, "first", 0)
	second := take(t, hv, vm, repo, backup.Request{ExcludeDisks: []string{"scsi0:1"}})
	write(t, hv, vm, 1, "second", 1<<20)
	last := take(t, hv, vm, repo, backup.Request{})
	third := last.Manifest
	if third.Disks[0].Parent != second.ID || third.Disks[1].Parent != first.ID || third.Parent != second.ID || third.Disks[1].ChangedBytes != 2<<20 {
		t.Errorf("parents: %s and %s, restore points %s, %s", third.Disks[0].Parent, third.Disks[1].Parent, first.ID, second.ID)
	}
	// A restore point that is deleted is no parent any more, and the one before is as good.
	for _, p := range []repository.ID{last.ID, second.ID} {
		if err := repo.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if m := take(t, hv, vm, repo, backup.Request{}).Manifest; m.Parent != first.ID || m.Disks[0].Parent != first.ID {
		t.Errorf("the parent is %s, want %s", m.Parent, first.ID)
	}
}

// Change tracking that is switched on by a backup serves the next one.
func TestTake_enable(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	repo := openRepository(t)
	for i, c := range []struct {
		tracking    hypervisor.ChangeTracking
		incremental bool
	}{
		{hypervisor.TrackingUse, false}, {hypervisor.TrackingUse, false}, {hypervisor.TrackingEnable, false},
		{hypervisor.TrackingUse, true}, {hypervisor.TrackingIgnore, false}, {"", true},
	} {
		write(t, hv, vm, 0, "changed", int64(i)*1000)
		result := take(t, hv, vm, repo, backup.Request{ChangeTracking: c.tracking})
		if result.Manifest.Incremental != c.incremental || len(result.Warnings) > 0 {
			t.Errorf("backup %d: incremental %v, warnings %q", i, result.Manifest.Incremental, result.Warnings)
		}
	}
}

func TestTake_verify(t *testing.T) {
	t.Parallel()
	hv, vm := newTrackedVM(t)
	repo := openRepository(t)
	r := backup.Request{Recheck: backup.RecheckSample}
	take(t, hv, vm, repo, r)
	write(t, hv, vm, 0, "changed", 1<<20)
	m := take(t, hv, vm, repo, r).Manifest
	if d := m.Disks[0]; !m.Incremental || d.ChangedBytes != 1<<20 || d.ReadBytes <= 1<<20 {
		t.Errorf("%+v", d)
	}
	if err := hv.WriteDiskUnnoticed(vm.ID, 1, []byte("x"), 2<<20); err != nil {
		t.Fatal(err)
	}
	_, err := newManager(hv, repo).Take(t.Context(), backup.Request{VM: "web", Recheck: backup.RecheckSample})
	var wrong *repository.TrackingError
	if !errors.As(err, &wrong) || wrong.Offset != 2<<20 || !strings.Contains(err.Error(), "Hard disk 2") {
		t.Errorf("error %v", err)
	}
	wantClean(t, hv, repo, 2)
	take(t, hv, vm, repo, backup.Request{Mode: backup.ModeFull})
	take(t, hv, vm, repo, r)
}

func TestTake_unknownChoices(t *testing.T) {
	t.Parallel()
	hv, _ := newVM(t)
	for _, r := range []backup.Request{
		{VM: "web", Mode: "x"}, {VM: "web", ChangeTracking: "x"}, {VM: "web", Recheck: "x"}, {},
	} {
		if _, err := newManager(hv, nil).Check(t.Context(), r); !errors.Is(err, backup.ErrRequest) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// Progress of an incremental backup is that of what is read, not of what is taken over.
func TestTake_progressOfChanges(t *testing.T) {
	t.Parallel()
	hv, vm := newTrackedVM(t)
	repo := openRepository(t)
	take(t, hv, vm, repo, backup.Request{})
	write(t, hv, vm, 0, "changed", capacity1-7) // in the last chunk, which is a short one
	write(t, hv, vm, 1, "changed", 1<<20)
	ctx, said := progresstest.Follow(t)
	if _, err := newManager(hv, repo).Take(ctx, backup.Request{VM: "web"}); err != nil {
		t.Fatal(err)
	}
	const want = 512 + 1<<20
	if got := said.Ended(t, "copying the disks"); got.Done != want || got.Total != want || got.Left() != 0 {
		t.Errorf("at the end it said %+v, want %d bytes", got, want)
	}
}
