package vsphere

import (
	"errors"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/backup/backuptest"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

var (
	historySeed  = flag.Uint64("history.seed", 2933109897269381970, "the life that TestHistory plays; 0: another one each time")
	historySteps = flag.Int("history.steps", 400, "steps of the random history, by each transport")
)

// labWorld is a VM of a lab.
type labWorld struct {
	t   *testing.T
	lab *lab.Lab
	c   *Client
}

func (w labWorld) Hypervisor() backup.Hypervisor { return w.c }

func (w labWorld) VM() hypervisor.VM { return *find(w.t, w.c, "web01") }

func (w labWorld) Write(n int, p []byte, offset int64) error {
	return w.lab.WriteDisk("web01", n, offset, p)
}

func (w labWorld) Content(n int) ([]byte, error) {
	p := make([]byte, w.VM().Disks[n].Capacity)
	return p, w.lab.ReadDisk("web01", n, 0, p)
}

// Revert implements backuptest.World: the snapshots have no memory, so the VM is started again.
func (w labWorld) Revert(id hypervisor.SnapshotID) error {
	vm := w.VM().ID
	_, _, err := w.c.RevertToSnapshot(w.t.Context(), vm, id, hypervisor.RevertOptions{})
	return errors.Join(err, w.c.PowerOn(w.t.Context(), vm))
}

func (w labWorld) Grow(n int, capacity int64) error {
	capacity = (capacity + 1023) &^ 1023
	editDisk(w.t, w.c, "web01", n, func(d *types.VirtualDisk) { d.CapacityInBytes, d.CapacityInKB = capacity, capacity>>10 })
	return nil
}

func (w labWorld) ResetTracking() error {
	off := false
	reconfigure(w.t, w.c, "web01", types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &off})
	return nil
}

// TestHistory plays the long and eventful life of a VM on the lab: every restore point is what its disks
// were, by whatever way they were read.
func TestHistory(t *testing.T) {
	t.Parallel()
	for name, transports := range map[string][]string{
		"datastore": {"datastore", "export"}, // where somebody else's snapshot is in the way
		"export":    {"export"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := *historySeed
			if seed == 0 {
				seed = rand.Uint64()
			}
			t.Logf("to repeat: -run TestHistory/%s -history.seed %d", name, seed)
			l := labtest.Start(t, lab.Options{VMs: []lab.VMSpec{{
				Name: "web01", ChangeTracking: true,
				Disks: []string{labtest.RawDisk(t, 4<<20+1024, 1), labtest.RawDisk(t, 2<<20, 2)},
			}}})
			config := labConfig(l)
			config.Transports = transports
			repo, err := repository.Open(t.Context(), repository.Config{
				Path: filepath.Join(t.TempDir(), "repository"), Password: secret.New("history"), Create: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			got := backuptest.Run(t, labWorld{t, l, dial(t, config)}, repo,
				backuptest.Options{Seed: seed, Steps: *historySteps, MaxCapacity: 8 << 20, MaxSnapshots: 2})
			t.Logf("%+v", got)
			if err := repo.Close(t.Context()); err != nil {
				t.Error(err)
			}
			for _, s := range l.Status().VMs[0].Snapshots {
				if strings.HasPrefix(s.Name, backup.SnapshotPrefix) {
					t.Errorf("left behind: %s", s.Name)
				}
			}
			if *historySeed != 0 && min(got.Incremental, got.Full) < 3 {
				t.Error("too little of something happened")
			}
		})
	}
}
