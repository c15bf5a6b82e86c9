package vsphere

import (
	"math/rand/v2"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// TestTracking_random lets a guest write, and people do to the VM what makes changes untellable, hundreds
// of times in random order. Whatever was read in between, full or not, is compared with what the guest had.
func TestTracking_random(t *testing.T) {
	t.Parallel()
	steps := 300
	if testing.Short() {
		steps = 100
	}
	for name, transports := range map[string][]string{"as it comes": nil, "export": {TransportExport}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(20, 26)) // the same on every run
			w := &vandal{bench: newTrackedBench(t, transports, 3<<20+512, 2<<20), r: r}
			w.find()
			for n := range 2 {
				w.disks = append(w.disks, &follower{bench: w.bench, n: n, granularity: 64 << 10 << n})
			}
			for range steps {
				w.do()
			}
			if w.full == 0 || w.incremental < steps/20 {
				t.Errorf("%d full reads, %d incremental ones", w.full, w.incremental)
			}
			t.Logf("%d full reads, %d incremental ones: %v", w.full, w.incremental, w.transports)
			w.dropAll()
			for len(w.lab.UnhitFaults()) > 0 { // of a backup that asked for nothing
				w.disks[0].step(hypervisor.PointInTimeSpec{ChangeTracking: hypervisor.TrackingEnable})
			}
			labtest.AssertClean(t, w.lab)
		})
	}
}

// A vandal does things to a VM in random order.
type vandal struct {
	*bench
	r          *rand.Rand
	disks      []*follower
	kept       []hypervisor.SnapshotID
	transports map[string]int

	full, incremental int
}

// do does one thing. Those that are bad for incremental reading are seldom.
func (w *vandal) do() {
	w.Helper()
	s, f := saboteur(w.lab, w.client), w.disks[w.r.IntN(len(w.disks))]
	switch n := w.r.IntN(100); {
	case n < 45:
		w.write(f.n)
	case n < 75:
		w.backUp(f)
	case n < 83 && len(w.kept) < 4:
		id, err := w.client.CreateSnapshot(w.Context(), w.vm.ID, hypervisor.SnapshotSpec{Name: "kept"})
		if err != nil {
			w.Fatal(err)
		}
		w.kept = append(w.kept, id)
	case n < 91 && len(w.kept) > 0:
		w.drop(w.r.IntN(len(w.kept)))
	case n < 94 && len(w.kept) > 0:
		s.Revert(w.T, benchVM, w.kept[w.r.IntN(len(w.kept))])
		w.find()
	case n < 96:
		w.dropAll()
		s.Resize(w.T, benchVM, f.n, w.vm.Disks[f.n].Capacity+64<<10)
		w.find()
	case n < 97:
		w.dropAll()
		s.SetChangeTracking(w.T, benchVM, !w.vm.ChangeTracking)
		w.find()
	case n < 98:
		w.lab.ForgetEvents()
	case n < 99:
		w.lab.PostEvent(benchVM, &types.VmRelocatedEvent{})
	default:
		s.FailChanges(w.T)
		w.backUp(f)
	}
}

func (w *vandal) write(n int) {
	w.Helper()
	capacity := w.vm.Disks[n].Capacity
	off := w.r.Int64N(capacity)
	data := make([]byte, min(1+w.r.Int64N(100_000), capacity-off))
	if w.r.IntN(4) > 0 { // else zeros
		for i := range data {
			data[i] = byte(w.r.Uint32())
		}
	}
	if err := w.lab.WriteDisk(benchVM, n, off, data); err != nil {
		w.Fatal(err)
	}
}

// backUp reads a disk, and compares. Now and then the process has died before it could keep the result.
func (w *vandal) backUp(f *follower) {
	w.Helper()
	spec := hypervisor.PointInTimeSpec{}
	if w.r.IntN(3) == 0 {
		spec.ChangeTracking = hypervisor.TrackingEnable
	}
	before := *f
	first := f.image == nil
	plan, _ := f.step(spec)
	w.find()
	switch {
	case plan.Areas != nil:
		w.incremental++
	case !first:
		w.full++
	}
	if w.transports == nil {
		w.transports = map[string]int{}
	}
	w.transports[plan.Transport]++
	if w.r.IntN(8) == 0 {
		*f = before
	}
}

func (w *vandal) drop(i int) {
	w.Helper()
	if err := w.client.RemoveSnapshot(w.Context(), w.vm.ID, w.kept[i], hypervisor.RemoveOptions{}); err != nil {
		w.Fatal(err)
	}
	w.kept = append(w.kept[:i], w.kept[i+1:]...)
}

func (w *vandal) dropAll() {
	w.Helper()
	for len(w.kept) > 0 {
		w.drop(0)
	}
}
