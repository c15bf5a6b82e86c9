package backup_test

import (
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/backup/backuptest"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
)

var (
	historySeed  = flag.Uint64("history.seed", 2933109897269381970, "the life that TestHistory plays; 0: another one each time")
	historySteps = flag.Int("history.steps", 2000, "steps of the random history")
)

// fakeWorld is a VM of a Fake.
type fakeWorld struct {
	t  *testing.T
	hv *hypervisortest.Fake
	id string
}

func (w fakeWorld) Hypervisor() backup.Hypervisor { return w.hv }

func (w fakeWorld) VM() hypervisor.VM {
	vm, err := w.hv.VMByInstanceUUID(w.t.Context(), w.id)
	if err != nil {
		w.t.Fatal(err)
	}
	return *vm
}

func (w fakeWorld) Write(n int, p []byte, offset int64) error {
	return w.hv.WriteDisk(w.VM().ID, n, p, offset)
}

func (w fakeWorld) Content(n int) ([]byte, error) { return w.hv.DiskBytes(w.VM().ID, n), nil }

func (w fakeWorld) Revert(id hypervisor.SnapshotID) error { return w.hv.Revert(w.VM().ID, id) }

func (w fakeWorld) Grow(n int, capacity int64) error {
	return w.hv.ResizeDisk(w.VM().ID, n, capacity)
}

func (w fakeWorld) ResetTracking() error {
	w.hv.SetChangeTracking(w.VM().ID, false)
	return nil
}

// Every restore point of a long and eventful life is what the disks were.
func TestHistory(t *testing.T) {
	t.Parallel()
	seed := *historySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("to repeat: -run TestHistory -history.seed %d", seed)
	hv := hypervisortest.NewFake(t)
	vm := hv.AddVM(hypervisortest.VMSpec{
		Name: "web", Tracking: true, Disks: [][]byte{content(1, 4<<20+512), content(2, 2<<20), make([]byte, 70_000)},
	})
	got := backuptest.Run(t, fakeWorld{t, hv, vm.InstanceUUID}, openRepository(t),
		backuptest.Options{Seed: seed, Steps: *historySteps, MaxCapacity: 9 << 20, MaxSnapshots: 3})
	t.Logf("%+v", got)
	if left := hv.Leftovers(backup.SnapshotPrefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if *historySeed != 0 && min(got.Incremental, got.Full, got.Failed, got.Deleted) < 3 {
		t.Error("too little of something happened")
	}
}
