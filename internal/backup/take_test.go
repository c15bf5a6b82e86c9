package backup_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress/progresstest"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

var errBroken = errors.New("broken on purpose")

func openRepository(t *testing.T) *repository.Repository {
	t.Helper()
	repo, err := repository.Open(t.Context(), repository.Config{
		Path: filepath.Join(t.TempDir(), "repository"), Password: secret.New("correct horse"), Create: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := repo.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return repo
}

// content is a disk with data, holes, and zeros that were written.
func content(seed uint64, capacity int) []byte {
	b := make([]byte, capacity)
	r := rand.New(rand.NewPCG(seed, seed))
	data := rand.NewChaCha8([32]byte{byte(seed)})
	for off := 0; off < capacity; off += 1 << 20 {
		if r.IntN(3) == 0 {
			continue
		}
		_, _ = data.Read(b[off:min(off+300<<10, capacity)]) // never fails
	}
	return b
}

const capacity1, capacity2 = 5<<20 + 512, 3 << 20

func newVM(t *testing.T) (*hypervisortest.Fake, hypervisor.VM) {
	t.Helper()
	hv := hypervisortest.NewFake(t)
	return hv, hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: [][]byte{content(1, capacity1), content(2, capacity2)}})
}

func newManager(hv backup.Hypervisor, repo backup.Repository) *backup.Manager {
	return backup.New(hv, repo, slog.New(slog.DiscardHandler), time.Now, "1.2.3")
}

// stored is a disk's content as the repository has it.
func stored(t *testing.T, repo *repository.Repository, id repository.ID, d repository.Disk) []byte {
	t.Helper()
	reader, err := repo.OpenDisk(t.Context(), id, d)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, reader.Capacity())
	if err := reader.Extents(t.Context(), func(off int64, data []byte) error {
		copy(b[off:], data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func wantClean(t *testing.T, hv *hypervisortest.Fake, repo *repository.Repository, backups int) {
	t.Helper()
	if left := hv.Leftovers(backup.SnapshotPrefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	points, err := repo.List(context.WithoutCancel(t.Context()), repository.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(points) != backups {
		t.Errorf("%d restore points, want %d", len(points), backups)
	}
}

func TestTake(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	repo := openRepository(t)
	want := [][]byte{hv.DiskBytes(vm.ID, 0), hv.DiskBytes(vm.ID, 1)}
	// The guest writes while its disks are read.
	hv.Fail(hypervisortest.Fault{At: hypervisortest.DuringRead, Do: func(context.Context) {
		for n := range want {
			if err := hv.WriteDisk(vm.ID, n, bytes.Repeat([]byte{0xee}, 1<<20), 1<<20); err != nil {
				t.Error(err)
			}
		}
	}})
	ctx, said := progresstest.Follow(t)
	result, err := newManager(hv, repo).Take(ctx, backup.Request{
		VM: "web", Description: "before the change", Tags: map[string]string{"a": "b"},
		Quiesce: quiesce.Policy{Mode: quiesce.Required},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantClean(t, hv, repo, 1)
	manifest, err := repo.Get(t.Context(), result.ID)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range manifest.Disks {
		if got := stored(t, repo, result.ID, d); !bytes.Equal(got, want[i]) {
			t.Errorf("%s: the repository has other bytes than the disk had", d.Label)
		}
	}
	if m := manifest; m.VM.InstanceUUID != vm.InstanceUUID || m.VM.PowerState != "powered_on" || m.Consistency != "filesystem" ||
		m.ProviderVersion != "1.2.3" || m.Description != "before the change" || m.Tags["a"] != "b" || m.Transport != "memory" {
		t.Errorf("manifest %+v", m)
	}
	nvram, err := repo.ReadFile(t.Context(), result.ID, manifest.Config.NVRAM)
	if err != nil || string(nvram) != "nvram of web" {
		t.Errorf("NVRAM %q, %v", nvram, err)
	}
	want1 := progress.Figures{Done: capacity1 + capacity2, Total: capacity1 + capacity2, Moved: manifest.ReadBytes}
	if got := said.Ended(t, "copying the disks"); got.Figures != want1 {
		t.Errorf("at the end it said %+v, want %+v", got, want1)
	}
	if len(result.Warnings) > 0 {
		t.Errorf("warnings %q", result.Warnings)
	}
}

func TestTake_exclude(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	repo := openRepository(t)
	hv.Edit(vm.ID, func(v *hypervisor.VM) {
		v.Obstacles = []hypervisor.Obstacle{{
			Kind: hypervisor.ObstacleIndependent, Device: "Hard disk 2", Disk: v.Disks[1].Key, Reason: "it is independent.", Remedy: "Exclude it.",
		}}
	})
	m := newManager(hv, repo)
	var obstacle *hypervisor.ObstacleError
	if _, err := m.Take(t.Context(), backup.Request{VM: "web"}); !errors.As(err, &obstacle) || !strings.Contains(err.Error(), "Hard disk 2") {
		t.Errorf("got error %v, want an obstacle that names the disk", err)
	}
	if hv.Seen(hypervisortest.BeforeOpenPointInTime) > 0 {
		t.Error("a point in time was opened nevertheless")
	}
	for _, name := range []string{"Hard disk 2", "scsi0:1", "SCSI0:1", strings.ToUpper(vm.Disks[1].UUID)} {
		result, err := m.Take(t.Context(), backup.Request{VM: "web", ExcludeDisks: []string{name}})
		if err != nil {
			t.Fatal(err)
		}
		got := result.Manifest
		if len(got.Disks) != 1 || got.Disks[0].Label != "Hard disk 1" || len(got.Excluded) != 1 || got.Excluded[0].Label != "Hard disk 2" {
			t.Errorf("%s: disks %+v, excluded %+v", name, got.Disks, got.Excluded)
		}
		if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "Hard disk 2") {
			t.Errorf("%s: warnings %q", name, result.Warnings)
		}
	}
	for _, names := range [][]string{{"Hard disk 7"}, {""}, {"scsi0:0", "scsi0:1"}} {
		_, err := m.Take(t.Context(), backup.Request{VM: "web", ExcludeDisks: names})
		if !errors.Is(err, backup.ErrRequest) {
			t.Errorf("excluding %q: %v", names, err)
		}
		if _, checkErr := m.Check(t.Context(), backup.Request{VM: "web", ExcludeDisks: names}); checkErr == nil || checkErr.Error() != err.Error() {
			t.Errorf("excluding %q: check says %v, take %v", names, checkErr, err)
		}
	}
	wantClean(t, hv, repo, 4)
}

func TestTake_refused(t *testing.T) {
	t.Parallel()
	block := func(kind hypervisor.ObstacleKind, disk hypervisor.DiskKey, blocks bool) func(*hypervisor.VM) {
		return func(vm *hypervisor.VM) {
			vm.Obstacles = []hypervisor.Obstacle{{Kind: kind, Device: "X", Disk: disk, Reason: "no.", Remedy: "Don't.", BlocksSnapshot: blocks}}
		}
	}
	for name, c := range map[string]struct {
		edit    func(vm *hypervisor.VM)
		request backup.Request
		is      error
	}{
		"template":                        {edit: block(hypervisor.ObstacleTemplate, "", false)},
		"vTPM":                            {edit: block(hypervisor.ObstacleTPM, "", false)},
		"blocks, though excluded":         {edit: block(hypervisor.ObstaclePhysicalRDM, "2000", true), request: backup.Request{ExcludeDisks: []string{"scsi0:0"}}},
		"unknown quiesce mode":            {request: backup.Request{Quiesce: quiesce.Policy{Mode: "x"}}, is: backup.ErrRequest},
		"quiescing required, no agent":    {edit: func(vm *hypervisor.VM) { vm.GuestAgent = false }, request: backup.Request{Quiesce: quiesce.Policy{Mode: quiesce.Required}}, is: hypervisor.ErrGuestAgent},
		"quiescing required, powered off": {edit: func(vm *hypervisor.VM) { vm.PowerState = hypervisor.PoweredOff }, request: backup.Request{Quiesce: quiesce.Policy{Mode: quiesce.Required}}, is: hypervisor.ErrQuiesce},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			if c.edit != nil {
				hv.Edit(vm.ID, c.edit)
			}
			c.request.VM = "web"
			_, err := newManager(hv, nil).Take(t.Context(), c.request)
			var obstacle *hypervisor.ObstacleError
			if c.is != nil && !errors.Is(err, c.is) || c.is == nil && !errors.As(err, &obstacle) {
				t.Errorf("got error %v", err)
			}
			if _, checkErr := newManager(hv, nil).Check(t.Context(), c.request); checkErr == nil || checkErr.Error() != err.Error() {
				t.Errorf("check says %v, take %v", checkErr, err)
			}
			if hv.Seen(hypervisortest.BeforeOpenPointInTime) > 0 {
				t.Error("a point in time was opened nevertheless")
			}
		})
	}
}

func TestTake_quiesce(t *testing.T) {
	t.Parallel()
	repo := openRepository(t)
	for name, c := range map[string]struct {
		edit func(hv *hypervisortest.Fake, vm *hypervisor.VM)
		mode quiesce.Mode
		want quiesce.Consistency
		warn bool
	}{
		"off":       {mode: quiesce.Off, want: quiesce.Crash},
		"preferred": {mode: quiesce.Preferred, want: quiesce.FileSystem},
		"application": {
			edit: func(hv *hypervisortest.Fake, _ *hypervisor.VM) { hv.QuiesceApplication = true }, mode: quiesce.Required, want: quiesce.Application,
		},
		"preferred, no agent": {
			edit: func(_ *hypervisortest.Fake, vm *hypervisor.VM) { vm.GuestAgent = false }, mode: quiesce.Preferred, want: quiesce.Crash, warn: true,
		},
		"preferred, fails": {
			edit: func(hv *hypervisortest.Fake, _ *hypervisor.VM) {
				hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeOpenPointInTime, Err: hypervisor.ErrQuiesce})
			}, mode: quiesce.Preferred, want: quiesce.Crash, warn: true,
		},
		"preferred, ignored": {
			edit: func(hv *hypervisortest.Fake, _ *hypervisor.VM) { hv.QuiesceIgnored = true }, mode: quiesce.Preferred, want: quiesce.Crash, warn: true,
		},
		"required, fails": {
			edit: func(hv *hypervisortest.Fake, _ *hypervisor.VM) {
				hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeOpenPointInTime, Err: hypervisor.ErrQuiesce})
			}, mode: quiesce.Required,
		},
		"required, ignored": {
			edit: func(hv *hypervisortest.Fake, _ *hypervisor.VM) { hv.QuiesceIgnored = true }, mode: quiesce.Required,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hv, vm := newVM(t)
			if c.edit != nil {
				hv.Edit(vm.ID, func(v *hypervisor.VM) { c.edit(hv, v) })
			}
			result, err := newManager(hv, repo).Take(t.Context(), backup.Request{VM: "web", Quiesce: quiesce.Policy{Mode: c.mode}})
			if left := hv.Leftovers(backup.SnapshotPrefix); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if c.want == "" {
				if !errors.Is(err, hypervisor.ErrQuiesce) {
					t.Errorf("got error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := result.Manifest.Consistency; got != string(c.want) || (len(result.Warnings) > 0) != c.warn ||
				!slices.Equal(result.Manifest.Warnings, result.Warnings) {
				t.Errorf("consistency %q, warnings %q, in the manifest %q", got, result.Warnings, result.Manifest.Warnings)
			}
		})
	}
}

// The plan warns of what the backup will be, in the same words.
func TestCheck_warns(t *testing.T) {
	t.Parallel()
	hv, vm := newVM(t)
	hv.Edit(vm.ID, func(v *hypervisor.VM) { v.GuestAgent = false })
	repo := openRepository(t)
	m := newManager(hv, repo)
	r := backup.Request{VM: "web", Quiesce: quiesce.Policy{Mode: quiesce.Preferred}, ExcludeDisks: []string{"scsi0:1"}}
	check, err := m.Check(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	result, err := m.Take(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if len(check.Warnings) != 2 || !slices.Equal(check.Warnings, result.Warnings) {
		t.Errorf("check warns %q, take %q", check.Warnings, result.Warnings)
	}
}

// A hypervisor's snapshot of a suspended VM holds its memory. The backup doesn't.
func TestTake_suspended(t *testing.T) {
	t.Parallel()
	fake, vm := newVM(t)
	fake.Edit(vm.ID, func(v *hypervisor.VM) { v.PowerState = hypervisor.Suspended })
	repo := openRepository(t)
	result, err := newManager(memoryHypervisor{fake}, repo).Take(t.Context(), backup.Request{VM: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Manifest.Consistency; got != string(quiesce.Crash) {
		t.Errorf("consistency %q", got)
	}
}

// A memoryHypervisor takes snapshots with memory unasked.
type memoryHypervisor struct{ *hypervisortest.Fake }

func (h memoryHypervisor) OpenPointInTime(
	ctx context.Context, vm hypervisor.VMID, spec hypervisor.PointInTimeSpec,
) (hypervisor.PointInTime, error) {
	p, err := h.Fake.OpenPointInTime(ctx, vm, spec)
	return memoryPoint{p}, err
}

type memoryPoint struct{ hypervisor.PointInTime }

func (p memoryPoint) Snapshot() hypervisor.Snapshot {
	s := p.PointInTime.Snapshot()
	s.Memory = true
	return s
}
