package restore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

var errBroken = errors.New("broken on purpose")

// content is a disk with data, holes, and zeros that were written.
func content(seed uint64, capacity int) []byte {
	b := make([]byte, capacity)
	r := rand.New(rand.NewPCG(seed, seed))
	data := rand.NewChaCha8([32]byte{byte(seed)})
	for off := 0; off < capacity; off += 1 << 20 {
		if off > 0 && r.IntN(3) == 0 {
			continue
		}
		_, _ = data.Read(b[off:min(off+300<<10, capacity)]) // never fails
	}
	return b
}

// A scene is a VM and a backup of it.
type scene struct {
	hv    *hypervisortest.Fake
	repo  *repository.Repository
	dir   string
	vm    hypervisor.VM
	disks [][]byte // as of the backup
	id    repository.ID
	m     *restore.Manager
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{hv: hypervisortest.NewFake(t), dir: filepath.Join(t.TempDir(), "repository")}
	s.disks = [][]byte{content(1, 5<<20+512), content(2, 3<<20)}
	s.vm = s.hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: s.disks})
	s.repo = openRepository(t, s.dir)
	s.m = restore.New(s.hv, s.repo, slog.New(slog.DiscardHandler), time.Now)
	result, err := backup.New(s.hv, s.repo, slog.New(slog.DiscardHandler), time.Now, "1").Take(t.Context(), backup.Request{VM: "web"})
	if err != nil {
		t.Fatal(err)
	}
	s.id = result.ID
	return s
}

func openRepository(t *testing.T, dir string) *repository.Repository {
	t.Helper()
	repo, err := repository.Open(t.Context(), repository.Config{Path: dir, Password: secret.New("correct horse"), Create: true})
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

func (s *scene) wantDisks(t *testing.T, vm hypervisor.VMID) {
	t.Helper()
	for i, want := range s.disks {
		if !bytes.Equal(s.hv.DiskBytes(vm, i), want) {
			t.Errorf("disk %d has other bytes than the backed up one", i)
		}
	}
}

func (s *scene) wantClean(t *testing.T, vms int) {
	t.Helper()
	if left := s.hv.Leftovers(backup.SnapshotPrefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if n := s.hv.VMs(); n != vms {
		t.Errorf("%d VMs, want %d", n, vms)
	}
}

func TestRestore_original(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var inUse *hypervisor.IdentityInUseError
	if _, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id}); !errors.As(err, &inUse) || inUse.VM != s.vm.Path {
		t.Errorf("while the original exists: %v", err)
	}
	if _, err := s.m.Check(t.Context(), restore.Request{BackupID: s.id}); !errors.As(err, &inUse) {
		t.Errorf("check while the original exists: %v", err)
	}
	s.wantClean(t, 1)
	s.hv.Lose(s.vm.ID)
	if warnings, err := s.m.Check(t.Context(), restore.Request{BackupID: s.id}); err != nil || len(warnings) > 0 {
		t.Errorf("check: %v, %v", warnings, err)
	}
	var last restore.Progress
	result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id, Progress: func(p restore.Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	s.wantClean(t, 1)
	s.wantDisks(t, result.VM.ID)
	vm := result.VM
	if vm.Path != s.vm.Path || vm.BIOSUUID != s.vm.BIOSUUID || vm.InstanceUUID != s.vm.InstanceUUID || vm.PowerState != hypervisor.PoweredOn {
		t.Errorf("restored %+v, want %+v", vm, s.vm)
	}
	for i, d := range result.Disks {
		if d.UUID != s.vm.Disks[i].UUID || d.Label != s.vm.Disks[i].Label || d.RestoredBytes == 0 || d.Digest == "" {
			t.Errorf("disk %+v, want %+v", d, s.vm.Disks[i])
		}
	}
	if network, connected := s.hv.Network(vm.ID); network != "net1" || !connected {
		t.Errorf("network %q, connected: %v", network, connected)
	}
	if result.RestoredBytes == 0 || last.Written != result.RestoredBytes || last.Disks != 2 || result.CompletedAt.IsZero() {
		t.Errorf("%d bytes, progress %+v", result.RestoredBytes, last)
	}
}

func TestRestore_copy(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	yes := true
	for name, connect := range map[string]*bool{"copy1": nil, "copy2": &yes} {
		result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id, Power: restore.PowerOff, NewVM: &restore.NewVM{
			Name: name, Identity: hypervisor.IdentityCopy, Datastore: "ds2", DiskDatastores: map[string]string{"scsi0:1": "ds1"},
			NetworkMap: map[string]string{"net1": "net2"}, ConnectNetworks: connect,
		}})
		if err != nil {
			t.Fatal(err)
		}
		vm := result.VM
		s.wantDisks(t, vm.ID)
		if vm.Name != name || vm.BIOSUUID == s.vm.BIOSUUID || vm.InstanceUUID == s.vm.InstanceUUID || vm.PowerState != hypervisor.PoweredOff {
			t.Errorf("restored %+v", vm)
		}
		if d := result.Disks; d[0].Datastore != "ds2" || d[1].Datastore != "ds1" || d[0].UUID == s.vm.Disks[0].UUID {
			t.Errorf("disks %+v", d)
		}
		if network, connected := s.hv.Network(vm.ID); network != "net2" || connected != (connect != nil) {
			t.Errorf("network %q, connected: %v", network, connected)
		}
		if err := s.m.Destroy(t.Context(), vm.InstanceUUID); err != nil {
			t.Error(err)
		}
		if err := s.m.Destroy(t.Context(), vm.InstanceUUID); err != nil {
			t.Errorf("destroy what is gone: %v", err)
		}
	}
	s.wantDisks(t, s.vm.ID)
	s.wantClean(t, 1)
}

func TestRestore_power(t *testing.T) {
	t.Parallel()
	for power, want := range map[restore.Power]hypervisor.PowerState{
		"": hypervisor.PoweredOn, restore.PowerAsCaptured: hypervisor.PoweredOn,
		restore.PowerOn: hypervisor.PoweredOn, restore.PowerOff: hypervisor.PoweredOff,
	} {
		s := newScene(t)
		s.hv.Lose(s.vm.ID)
		result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id, Power: power})
		if err != nil {
			t.Fatal(err)
		}
		if result.VM.PowerState != want {
			t.Errorf("power %q: %s", power, result.VM.PowerState)
		}
	}
}

func TestRestore_refused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var unavailable *hypervisor.NotAvailableError
	for name, c := range map[string]struct {
		request restore.Request
		is      error
		as      any
		says    string
	}{
		"no backup":          {is: restore.ErrRequest},
		"unknown backup":     {request: restore.Request{BackupID: "00000000000000000000000000000000"}, is: repository.ErrNotFound},
		"unknown power":      {request: restore.Request{BackupID: s.id, Power: "x"}, is: restore.ErrRequest},
		"negative parallel":  {request: restore.Request{BackupID: s.id, Parallel: -1}, is: restore.ErrRequest},
		"unknown identity":   {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{Identity: "x"}}, is: restore.ErrRequest},
		"unknown disk":       {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{DiskDatastores: map[string]string{"Hard disk 9": "ds1"}}}, is: restore.ErrRequest, says: "Hard disk 2"},
		"disk to two places": {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{DiskDatastores: map[string]string{"Hard disk 1": "ds1", "scsi0:0": "ds2"}}}, is: restore.ErrRequest},
		"unknown datastore":  {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{Name: "n", Identity: "copy", Datastore: "x"}}, as: &unavailable, says: "ds1"},
		"unknown network":    {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{Name: "n", Identity: "copy", NetworkMap: map[string]string{"net1": "x"}}}, as: &unavailable, says: "net2"},
		"name in use":        {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{Identity: "copy"}}, as: new(*hypervisor.NameInUseError)},
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
	if s.hv.Seen(hypervisortest.BeforeStartRestore) > 0 {
		t.Error("a VM was created nevertheless")
	}
	s.wantClean(t, 1)
}

func TestRestore_failures(t *testing.T) {
	t.Parallel()
	for _, fault := range []hypervisortest.Fault{
		{At: hypervisortest.BeforeCheckRestore},
		{At: hypervisortest.BeforeStartRestore},
		{At: hypervisortest.DuringStartRestore},
		{At: hypervisortest.BeforeWriteDisk},
		{At: hypervisortest.BeforeWriteDisk, Skip: 1},
		{At: hypervisortest.DuringWriteDisk},
		{At: hypervisortest.DuringWriteDisk, Skip: 3},
		{At: hypervisortest.AfterWriteDisk},
		{At: hypervisortest.AfterWriteDisk, Skip: 1},
		{At: hypervisortest.BeforeCommit},
		{At: hypervisortest.AfterCommit},
	} {
		for _, how := range []string{"error", "cancel"} {
			t.Run(string(fault.At)+"/"+how, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				s.hv.Lose(s.vm.ID)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				fault, want := fault, errBroken
				if how == "cancel" {
					want = context.Canceled
					fault.Do = func(context.Context) { cancel() }
				} else {
					fault.Err = errBroken
				}
				s.hv.Fail(fault)
				if result, err := s.m.Restore(ctx, restore.Request{BackupID: s.id}); !errors.Is(err, want) || result != nil {
					t.Errorf("got %v, %v, want error %v", result, err, want)
				}
				s.wantClean(t, 0)
				result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
				if err != nil {
					t.Fatalf("second attempt: %v", err)
				}
				s.wantDisks(t, result.VM.ID)
				s.wantClean(t, 1)
			})
		}
	}
}

// The VM is complete when it can't be started: it stays, and the caller gets to know it.
func TestRestore_powerOnFails(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"error", "cancel"} {
		s := newScene(t)
		s.hv.Lose(s.vm.ID)
		ctx, cancel := context.WithCancel(t.Context())
		want := errBroken
		fault := hypervisortest.Fault{At: hypervisortest.BeforePowerOn, Err: errBroken}
		if how == "cancel" {
			want = context.Canceled
			fault.Do, fault.Err = func(context.Context) { cancel() }, nil
		}
		s.hv.Fail(fault)
		result, err := s.m.Restore(ctx, restore.Request{BackupID: s.id})
		cancel()
		if !errors.Is(err, want) || result == nil || result.VM.InstanceUUID != s.vm.InstanceUUID || result.VM.PowerState != hypervisor.PoweredOff {
			t.Fatalf("%s: got %+v, %v", how, result, err)
		}
		s.wantClean(t, 1)
		s.wantDisks(t, result.VM.ID)
	}
}

// Started, but reading it back fails.
func TestRestore_readBackFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeVMByInstanceUUID, Err: errBroken})
	result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
	if err != nil {
		t.Fatal(err)
	}
	if result.VM.PowerState != hypervisor.PoweredOn || len(result.Warnings) != 1 {
		t.Errorf("%s, warnings %q", result.VM.PowerState, result.Warnings)
	}
}

// What Abort can't remove is named, and the next restore removes it.
func TestRestore_abortFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCommit, Err: hypervisor.ErrLost})
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeAbort, Err: errBroken})
	_, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
	if !errors.Is(err, hypervisor.ErrLost) || !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "stays behind") {
		t.Errorf("got error %v", err)
	}
	if left := s.hv.Leftovers(""); len(left) != 1 {
		t.Fatalf("left behind: %v", left)
	}
	result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], s.vm.Path) {
		t.Errorf("warnings %q", result.Warnings)
	}
	s.wantClean(t, 1)
}

func TestRestore_cleansUp(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Skip("needs the command true of the package coreutils")
	}
	living := run.Start(time.Now(), time.Time{})
	t.Cleanup(living.End)
	dead := living
	dead.ID, dead.PID = run.ID{1}, cmd.ProcessState.Pid()
	for name, c := range map[string]struct {
		runID string
		gone  bool
	}{
		"killed": {dead.Token(), true},
		"living": {living.Token(), false},
		"other":  {"something else", false},
		"none":   {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			m, err := s.repo.Get(t.Context(), s.id)
			if err != nil {
				t.Fatal(err)
			}
			data, err := s.repo.ReadFile(t.Context(), s.id, m.Config.File)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.hv.StartRestore(t.Context(), hypervisor.RestoreSpec{
				Config:   hypervisor.Config{Format: m.Config.Format, Data: data},
				Identity: hypervisor.IdentityCopy, Name: "half", RunID: c.runID,
			}); err != nil {
				t.Fatal(err)
			}
			s.hv.Lose(s.vm.ID)
			result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
			if err != nil {
				t.Fatal(err)
			}
			if gone := len(s.hv.Leftovers("")) == 0; gone != c.gone || (len(result.Warnings) == 1) != c.gone {
				t.Errorf("gone: %v, warnings %q", gone, result.Warnings)
			}
		})
	}
}

func TestRestore_cleanUpFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCleanUpRestores, Err: errBroken})
	result, err := s.m.Restore(t.Context(), restore.Request{BackupID: s.id})
	if err != nil || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], errBroken.Error()) {
		t.Errorf("got %+v, %v", result, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.hv.Fail(hypervisortest.Fault{At: hypervisortest.BeforeCleanUpRestores, Do: func(context.Context) { cancel() }})
	if _, err := s.m.Restore(ctx, restore.Request{BackupID: s.id}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A repository that lost or changed a disk's data must not make a VM.
func TestRestore_damaged(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hv.Lose(s.vm.ID)
	packs := 0
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		// Data is in files below directories that are named p….
		if err != nil || d.IsDir() || !strings.HasPrefix(strings.TrimPrefix(path, s.dir), "/p") {
			return err
		}
		packs++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := len(b) / 4; i < len(b)*3/4; i += 97 {
			b[i] ^= 0x55
		}
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || packs == 0 {
		t.Fatalf("%d packs, %v", packs, err)
	}
	// Opened anew: what was read before is in a cache.
	m := restore.New(s.hv, openRepository(t, s.dir), slog.New(slog.DiscardHandler), time.Now)
	if result, err := m.Restore(t.Context(), restore.Request{BackupID: s.id}); !errors.Is(err, repository.ErrDamaged) || result != nil {
		t.Errorf("got %+v, %v", result, err)
	}
	s.wantClean(t, 0)
}

// Writers that swallow what the source says, or don't read it to its end, don't get a VM started.
func TestRestore_writerLies(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(ctx context.Context, src disk.Source) error{
		"reads nothing": func(context.Context, disk.Source) error { return nil },
		"swallows the error": func(ctx context.Context, src disk.Source) error {
			_ = src.Extents(ctx, func(int64, []byte) error { return errBroken })
			return nil
		},
	} {
		s := newScene(t)
		s.hv.Lose(s.vm.ID)
		m := restore.New(lyingHypervisor{s.hv, write}, s.repo, slog.New(slog.DiscardHandler), time.Now)
		if result, err := m.Restore(t.Context(), restore.Request{BackupID: s.id}); err == nil || result != nil {
			t.Errorf("%s: got %+v, %v", name, result, err)
		}
		s.wantClean(t, 0)
	}
}

type lyingHypervisor struct {
	*hypervisortest.Fake
	write func(ctx context.Context, src disk.Source) error
}

func (h lyingHypervisor) StartRestore(ctx context.Context, spec hypervisor.RestoreSpec) (hypervisor.Restore, error) {
	r, err := h.Fake.StartRestore(ctx, spec)
	return lyingRestore{r, h.write}, err
}

type lyingRestore struct {
	hypervisor.Restore
	write func(ctx context.Context, src disk.Source) error
}

func (r lyingRestore) WriteDisk(ctx context.Context, _ hypervisor.DiskKey, src disk.Source) error {
	return r.write(ctx, src)
}

func TestRestore_withoutExcluded(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	result, err := backup.New(s.hv, s.repo, slog.New(slog.DiscardHandler), time.Now, "1").Take(t.Context(),
		backup.Request{VM: "web", ExcludeDisks: []string{"scsi0:1"}})
	if err != nil {
		t.Fatal(err)
	}
	restored, err := s.m.Restore(t.Context(), restore.Request{BackupID: result.ID, NewVM: &restore.NewVM{Name: "copy", Identity: hypervisor.IdentityCopy}})
	if err != nil {
		t.Fatal(err)
	}
	if len(restored.Disks) != 1 || len(restored.Warnings) != 1 || !strings.Contains(restored.Warnings[0], "Hard disk 2") {
		t.Errorf("disks %+v, warnings %q", restored.Disks, restored.Warnings)
	}
}

func TestDestroy_fails(t *testing.T) {
	t.Parallel()
	for _, at := range []hypervisortest.Point{hypervisortest.BeforeVMByInstanceUUID, hypervisortest.BeforeDestroyVM} {
		hv := hypervisortest.NewFake(t)
		vm := hv.AddVM(hypervisortest.VMSpec{Name: "web"})
		hv.Fail(hypervisortest.Fault{At: at, Err: errBroken})
		m := restore.New(hv, nil, slog.New(slog.DiscardHandler), time.Now)
		if err := m.Destroy(t.Context(), vm.InstanceUUID); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", at, err)
		}
		if err := m.Destroy(t.Context(), vm.InstanceUUID); err != nil || hv.VMs() != 0 {
			t.Errorf("%s, second attempt: %v", at, err)
		}
	}
}
