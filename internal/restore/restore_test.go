package restore_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress/progresstest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

const repositoryPassword = "correct horse"

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

// newScene is a VM that was backed up, on a hypervisor of its own. The backup is in a repository that tests
// share: to open one takes longer than most tests.
func newScene(t *testing.T) *scene {
	t.Helper()
	return sharedScene(t).at(t)
}

func sharedScene(t *testing.T) scene {
	t.Helper()
	shared.once.Do(func() { shared.err = takeShared(t) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.scene
}

// shared is the scene whose backup the others use, and the directory of its repository.
var shared struct {
	once sync.Once
	scene
	err error
}

// takeShared takes the backup. Its repository outlives the test.
func takeShared(t *testing.T) error {
	t.Helper()
	dir, err := os.MkdirTemp("", "restore-test-") //nolint:usetesting // it is of many tests
	if err != nil {
		return err
	}
	ctx := context.WithoutCancel(t.Context())
	repo, err := repository.Open(ctx, repository.Config{Path: dir, Password: secret.New(repositoryPassword), Create: true})
	if err != nil {
		return err
	}
	shared.scene, err = takeScene(t, repo, dir)
	return err
}

// closeShared removes what takeShared made.
func closeShared(ctx context.Context) error {
	if shared.repo == nil {
		return nil
	}
	return errors.Join(shared.repo.Close(ctx), os.RemoveAll(shared.dir))
}

// newOwnScene is a scene with a repository of its own.
func newOwnScene(t *testing.T) *scene {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repository")
	s, err := takeScene(t, openRepository(t, dir), dir)
	if err != nil {
		t.Fatal(err)
	}
	return s.at(t)
}

// takeScene makes a VM and backs it up.
func takeScene(t *testing.T, repo *repository.Repository, dir string) (scene, error) {
	t.Helper()
	s := scene{hv: hypervisortest.NewFake(t), repo: repo, dir: dir}
	s.disks = [][]byte{content(1, 5<<20+512), content(2, 3<<20)}
	s.vm = s.hv.AddVM(hypervisortest.VMSpec{Name: "web", Disks: s.disks})
	result, err := backup.New(s.hv, s.repo, slog.New(slog.DiscardHandler), time.Now, "1").
		Take(t.Context(), backup.Request{VM: "web"})
	if err != nil {
		return s, err
	}
	s.id = result.ID
	return s, nil
}

// at is the scene on another hypervisor.
func (s scene) at(t *testing.T) *scene {
	t.Helper()
	s.hv = hypervisortest.NewFake(t)
	id := s.hv.AddVM(hypervisortest.VMSpec{Name: s.vm.Name, Disks: s.disks}).ID
	s.vm.ID = id
	s.hv.Edit(id, func(vm *hypervisor.VM) {
		*vm = s.vm
		vm.Disks = slices.Clone(s.vm.Disks)
	})
	s.m = restore.New(s.hv, s.repo, slog.New(slog.DiscardHandler), time.Now)
	return &s
}

func openRepository(t *testing.T, dir string) *repository.Repository {
	t.Helper()
	repo, err := repository.Open(t.Context(), repository.Config{Path: dir, Password: secret.New(repositoryPassword), Create: true})
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
	ctx, said := progresstest.Follow(t)
	result, err := s.m.Restore(ctx, restore.Request{BackupID: s.id})
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
	want := progress.Figures{Done: result.RestoredBytes, Total: result.RestoredBytes, Moved: result.RestoredBytes}
	if got := said.Ended(t, "writing the disks"); result.RestoredBytes == 0 || got.Figures != want || result.CompletedAt.IsZero() {
		t.Errorf("%d bytes, completed %s; at the end it said %+v", result.RestoredBytes, result.CompletedAt, got)
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
		if err := s.hv.DestroyVM(t.Context(), vm.ID); err != nil {
			t.Error(err)
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
		"unknown identity":   {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{Identity: "x"}}, is: restore.ErrRequest},
		"unknown disk":       {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{DiskDatastores: map[string]string{"Hard disk 9": "ds1"}}}, is: restore.ErrRequest, says: "Hard disk 2"},
		"disk to two places": {request: restore.Request{BackupID: s.id, NewVM: &restore.NewVM{DiskDatastores: map[string]string{"Hard disk 1": "ds1", "scsi0:0": "ds2"}}}, is: restore.ErrRequest},
		"disk that stays":    {request: restore.Request{BackupID: s.id, Disks: []string{"scsi0:0"}, NewVM: &restore.NewVM{DiskDatastores: map[string]string{"Hard disk 2": "ds1"}}}, is: restore.ErrRequest, says: "not among the disks"},
		"no such disk":       {request: restore.Request{BackupID: s.id, Disks: []string{"scsi0:0", "Hard disk 9"}}, is: restore.ErrRequest, says: "Hard disk 2"},
		"as before":          {request: restore.Request{BackupID: s.id, Power: restore.PowerAsBefore}, is: restore.ErrRequest},
		"negative timeout":   {request: restore.Request{BackupID: s.id, WaitForGuest: &restore.WaitForGuest{Timeout: -1}}, is: restore.ErrRequest},
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
	// The one warning is what the backup says of itself, the other what becomes of it here.
	if w := restored.Warnings; len(restored.Disks) != 1 || len(w) != 2 || !strings.Contains(w[0], "Hard disk 2") ||
		w[0] != "when the backup was taken: "+result.Warnings[0] || !strings.Contains(w[1], "Hard disk 2") {
		t.Errorf("disks %+v, warnings %q", restored.Disks, w)
	}
}
