package hypervisortest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A Saboteur does to VMs what people do behind the back of one who counts on change tracking.
type Saboteur struct {
	// SetChangeTracking switches the change tracking of a VM without snapshots on or off.
	SetChangeTracking func(t *testing.T, vm string, on bool)
	// Revert brings a VM back to a snapshot.
	Revert func(t *testing.T, vm string, id hypervisor.SnapshotID)
	// Resize makes the n-th disk of a VM without snapshots larger.
	Resize func(t *testing.T, vm string, n int, capacity int64)
	// FailChanges makes the server fail when it is next asked for what changed.
	FailChanges func(t *testing.T)
}

const granularity = 1 << 20

// An incremental is what a caller of the port keeps of a disk to read only its changes the next time.
type incremental struct {
	s     *suite
	vm    *hypervisor.VM
	n     int
	token string
	image []byte
}

// follow begins to follow a disk of a VM whose change tracking is on.
func (s *suite) follow(t *testing.T, vm *hypervisor.VM, n int) *incremental {
	t.Helper()
	i := &incremental{s: s, vm: vm, n: n}
	plan := i.step(t, hypervisor.PointInTimeSpec{}, nil)
	if i.token == "" {
		t.Fatalf("no token although change tracking is on: %+v", plan)
	}
	return i
}

// step takes a point in time, reads what the plan says, and compares the result with what the guest
// had when it was opened. While the disk is read, the guest writes to all of it.
func (i *incremental) step(t *testing.T, spec hypervisor.PointInTimeSpec, also *disk.Areas) hypervisor.ReadPlan {
	t.Helper()
	want := i.s.ReadDisk(t, i.vm.Name, i.n)
	p := i.s.open(t, i.vm, spec)
	request := hypervisor.DiskRequest{Granularity: granularity}
	if i.image != nil {
		request.Base = &hypervisor.Base{Tracking: i.token, Also: also}
	}
	d := p.Config().Summary.Disks[i.n]
	reader, err := p.OpenDisk(t.Context(), d.Key, request)
	if err != nil {
		t.Fatal(err)
	}
	plan := reader.Plan()
	image := i.base(t, plan, d.Capacity)
	wrote := false
	err = reader.Extents(t.Context(), func(off int64, data []byte) error {
		if !wrote {
			wrote = true
			i.s.WriteDisk(t, i.vm.Name, i.n, bytes.Repeat([]byte{0xc3}, 3<<10), d.Capacity/2)
		}
		for at := off; plan.Areas != nil && at < off+int64(len(data)); at++ {
			if !plan.Areas.Contains(at) {
				return errors.New("data outside of the areas of the plan")
			}
		}
		copy(image[off:], data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	closePoint(t, p)
	wantBytes(t, "base and what was read", [][]byte{image}, [][]byte{want})
	i.image, i.token = image, plan.Tracking
	return plan
}

// base is what the disk is before what was read is put in: what is in the areas is zero at first.
func (i *incremental) base(t *testing.T, plan hypervisor.ReadPlan, capacity int64) []byte {
	t.Helper()
	image := make([]byte, capacity)
	if plan.Areas == nil {
		return image
	}
	if i.image == nil {
		t.Fatal("the areas of a disk that has no base")
	}
	if plan.FullReason != "" || plan.Areas.Capacity() != capacity || plan.Areas.Granularity() != granularity {
		t.Fatalf("plan %+v", plan)
	}
	copy(image, i.image)
	plan.Areas.Each(func(e disk.Extent) bool { clear(image[e.Offset:e.End()]); return true })
	return image
}

// wantFull checks that a plan is to read everything, and says why.
func wantFull(t *testing.T, plan hypervisor.ReadPlan) {
	t.Helper()
	if plan.Areas != nil || plan.FullReason == "" {
		t.Errorf("not a full read with a reason: %+v", plan)
	}
}

func (s *suite) tracked(t *testing.T, name string) *hypervisor.VM {
	t.Helper()
	return s.add(t, VMSpec{Name: name, Tracking: true, Disks: [][]byte{pattern(1, capacities[0]), pattern(2, capacities[1])}})
}

var trackingTests = []suiteTest{
	{"tracking/reads what changed", func(t *testing.T, s *suite) {
		vm := s.tracked(t, "vm1")
		if !vm.ChangeTracking {
			t.Error("the VM doesn't say that change tracking is on")
		}
		i := s.follow(t, vm, 0)
		i.step(t, hypervisor.PointInTimeSpec{}, nil) // what was written during the first
		if plan := i.step(t, hypervisor.PointInTimeSpec{}, nil); plan.Areas == nil || plan.Areas.Bytes() > granularity {
			t.Errorf("the guest wrote to one place, and %d bytes are read: %q", plan.Areas.Bytes(), plan.FullReason)
		}
		s.WriteDisk(t, "vm1", 0, pattern(9, 4<<10), 1<<20-2<<10) // across the border of two units
		s.WriteDisk(t, "vm1", 0, []byte{0xa5}, int64(capacities[0]-1))
		s.WriteDisk(t, "vm1", 0, make([]byte, 128<<10), 3<<20)
		plan := i.step(t, hypervisor.PointInTimeSpec{}, nil)
		if plan.Areas == nil || plan.Areas.Bytes() < 3*granularity {
			t.Errorf("areas of %d bytes, %q", plan.Areas.Bytes(), plan.FullReason)
		}
	}},
	{"tracking/other disks and old bases", func(t *testing.T, s *suite) {
		vm := s.tracked(t, "vm1")
		first := s.follow(t, vm, 1)
		old := *first
		first.step(t, hypervisor.PointInTimeSpec{}, nil)
		s.WriteDisk(t, "vm1", 0, pattern(4, 1<<20), 0)
		s.WriteDisk(t, "vm1", 1, pattern(5, 1<<10), 0)
		first.step(t, hypervisor.PointInTimeSpec{}, nil)
		if plan := old.step(t, hypervisor.PointInTimeSpec{}, nil); plan.Areas == nil {
			t.Errorf("an older base is as good: %+v", plan)
		}
	}},
	{"tracking/snapshots of others", func(t *testing.T, s *suite) {
		vm := s.tracked(t, "vm1")
		i := s.follow(t, vm, 0)
		i.step(t, hypervisor.PointInTimeSpec{}, nil)
		s.WriteDisk(t, "vm1", 0, pattern(4, 1<<10), 0)
		kept := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "kept"})
		s.WriteDisk(t, "vm1", 0, pattern(5, 1<<10), 2<<20)
		i.step(t, hypervisor.PointInTimeSpec{}, nil)
		if err := s.Hypervisor.RemoveSnapshot(t.Context(), vm.ID, kept.ID, hypervisor.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		s.WriteDisk(t, "vm1", 0, pattern(6, 1<<10), 4<<20)
		i.step(t, hypervisor.PointInTimeSpec{}, nil)
		if plan := i.step(t, hypervisor.PointInTimeSpec{}, nil); plan.Areas == nil {
			t.Errorf("plan %+v", plan)
		}
	}},
	{"tracking/areas that didn't change", func(t *testing.T, s *suite) {
		i := s.follow(t, s.tracked(t, "vm1"), 0)
		also := disk.NewAreas(int64(capacities[0]), granularity)
		also.Add(disk.Extent{Offset: 4 << 20, Length: 1})
		also.Add(disk.Extent{Offset: int64(capacities[0]) - 1, Length: 1})
		plan := i.step(t, hypervisor.PointInTimeSpec{}, also)
		if plan.Areas == nil || !plan.Areas.Contains(4<<20) || !plan.Areas.Contains(int64(capacities[0])-1) {
			t.Errorf("plan %+v", plan)
		}
	}},
	{"tracking/not wanted", func(t *testing.T, s *suite) {
		i := s.follow(t, s.tracked(t, "vm1"), 0)
		plan := i.step(t, hypervisor.PointInTimeSpec{ChangeTracking: hypervisor.TrackingIgnore}, nil)
		if wantFull(t, plan); plan.Tracking != "" {
			t.Errorf("a token: %q", plan.Tracking)
		}
		wantFull(t, i.step(t, hypervisor.PointInTimeSpec{}, nil)) // there is no token
	}},
	{"tracking/off, and switched on", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		i := &incremental{s: s, vm: vm}
		for _, want := range []hypervisor.ChangeTracking{"", hypervisor.TrackingUse, hypervisor.TrackingIgnore} {
			if i.step(t, hypervisor.PointInTimeSpec{ChangeTracking: want}, nil); i.token != "" || s.find(t, vm.InstanceUUID).ChangeTracking {
				t.Errorf("%q: token %q, or it is on", want, i.token)
			}
		}
		i.step(t, hypervisor.PointInTimeSpec{ChangeTracking: hypervisor.TrackingEnable}, nil)
		if i.token == "" || !s.find(t, vm.InstanceUUID).ChangeTracking {
			t.Fatalf("token %q, or it is still off", i.token)
		}
		s.WriteDisk(t, "vm1", 0, pattern(4, 1<<10), 0)
		if plan := i.step(t, hypervisor.PointInTimeSpec{ChangeTracking: hypervisor.TrackingEnable}, nil); plan.Areas == nil {
			t.Errorf("plan %+v", plan)
		}
	}},
	{"tracking/not switched on over snapshots", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "kept"})
		p := s.open(t, vm, hypervisor.PointInTimeSpec{ChangeTracking: hypervisor.TrackingEnable})
		if len(p.Config().Warnings) == 0 || s.find(t, vm.InstanceUUID).ChangeTracking {
			t.Errorf("warnings %q, or it is on", p.Config().Warnings)
		}
		reader, err := p.OpenDisk(t.Context(), vm.Disks[0].Key, hypervisor.DiskRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if plan := reader.Plan(); plan.Tracking != "" {
			t.Errorf("plan %+v", plan)
		}
		closePoint(t, p)
	}},
	{"tracking/tokens of others", func(t *testing.T, s *suite) {
		i := s.follow(t, s.tracked(t, "vm1"), 0)
		other := s.follow(t, s.tracked(t, "vm2"), 0)
		good := i.token
		for _, token := range []string{other.token, "", "{", good[:len(good)-1], "null", "[]"} {
			i.token = token
			wantFull(t, i.step(t, hypervisor.PointInTimeSpec{}, nil))
		}
	}},
	{"tracking/reverted", func(t *testing.T, s *suite) {
		vm := s.tracked(t, "vm1")
		kept := s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "kept"})
		s.WriteDisk(t, "vm1", 0, pattern(4, 1<<20), 0)
		i := s.follow(t, vm, 0)
		s.Sabotage.Revert(t, "vm1", kept.ID)
		wantFull(t, i.step(t, hypervisor.PointInTimeSpec{}, nil))
		i.step(t, hypervisor.PointInTimeSpec{}, nil)
		if plan := i.step(t, hypervisor.PointInTimeSpec{}, nil); plan.Areas == nil {
			t.Errorf("afterwards it goes on: %+v", plan)
		}
	}},
	{"tracking/resized", func(t *testing.T, s *suite) {
		i := s.follow(t, s.tracked(t, "vm1"), 1)
		s.Sabotage.Resize(t, "vm1", 1, int64(capacities[1])+3<<20)
		wantFull(t, i.step(t, hypervisor.PointInTimeSpec{}, nil))
		if plan := i.step(t, hypervisor.PointInTimeSpec{}, nil); plan.Areas == nil {
			t.Errorf("afterwards it goes on: %+v", plan)
		}
	}},
	{"tracking/switched off and on", func(t *testing.T, s *suite) {
		i := s.follow(t, s.tracked(t, "vm1"), 0)
		s.Sabotage.SetChangeTracking(t, "vm1", false)
		s.WriteDisk(t, "vm1", 0, pattern(4, 1<<20), 0)
		s.Sabotage.SetChangeTracking(t, "vm1", true)
		wantFull(t, i.step(t, hypervisor.PointInTimeSpec{}, nil))
		s.Sabotage.SetChangeTracking(t, "vm1", false)
		plan := i.step(t, hypervisor.PointInTimeSpec{}, nil)
		if wantFull(t, plan); plan.Tracking != "" {
			t.Errorf("a token: %q", plan.Tracking)
		}
	}},
	{"tracking/the query fails", func(t *testing.T, s *suite) {
		i := s.follow(t, s.tracked(t, "vm1"), 0)
		s.WriteDisk(t, "vm1", 0, pattern(4, 1<<20), 0)
		s.Sabotage.FailChanges(t)
		wantFull(t, i.step(t, hypervisor.PointInTimeSpec{}, nil))
		if plan := i.step(t, hypervisor.PointInTimeSpec{}, nil); plan.Areas == nil {
			t.Errorf("afterwards it goes on: %+v", plan)
		}
	}},
	{"tracking/at random", randomTracking},
}

// randomTracking does many things to a VM in random order, and takes a point in time now and then.
func randomTracking(t *testing.T, s *suite) {
	const steps = 60
	r := rand.New(rand.NewPCG(2, 7))
	vm := s.tracked(t, "vm1")
	disks := []*incremental{s.follow(t, vm, 0), s.follow(t, vm, 1)}
	var kept []hypervisor.SnapshotID
	increments := 0
	for range steps {
		n := r.IntN(len(disks))
		switch what := r.IntN(12); {
		case what < 5:
			off := r.IntN(len(disks[n].image))
			s.WriteDisk(t, "vm1", n, pattern(r.Uint64(), 512+r.IntN(60_000))[:min(512, len(disks[n].image)-off)], int64(off))
		case what < 9:
			if plan := disks[n].step(t, hypervisor.PointInTimeSpec{}, nil); plan.Areas != nil {
				increments++
			}
		case what == 9:
			kept = append(kept, s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "kept"}).ID)
		case what == 10 && len(kept) > 0:
			i := r.IntN(len(kept))
			if err := s.Hypervisor.RemoveSnapshot(t.Context(), vm.ID, kept[i], hypervisor.RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
			kept = append(kept[:i], kept[i+1:]...)
		case what == 11 && len(kept) > 0 && r.IntN(3) == 0:
			s.Sabotage.Revert(t, "vm1", kept[r.IntN(len(kept))])
		}
	}
	if increments == 0 {
		t.Error("nothing was ever read incrementally")
	}
}
