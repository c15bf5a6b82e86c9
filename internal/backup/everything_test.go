package backup_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
)

// An eavesdropper notes which disks are asked for, and how.
type eavesdropper struct {
	*hypervisortest.Fake
	mu    sync.Mutex
	heard map[hypervisor.DiskKey][]hypervisor.DiskRequest
}

type overheard struct {
	hypervisor.PointInTime
	by *eavesdropper
}

func (e *eavesdropper) OpenPointInTime(
	ctx context.Context, vm hypervisor.VMID, spec hypervisor.PointInTimeSpec,
) (hypervisor.PointInTime, error) {
	point, err := e.Fake.OpenPointInTime(ctx, vm, spec)
	if err != nil {
		return nil, err
	}
	return overheard{point, e}, nil
}

func (o overheard) OpenDisk(
	ctx context.Context, key hypervisor.DiskKey, request hypervisor.DiskRequest,
) (hypervisor.DiskReader, error) {
	o.by.mu.Lock()
	o.by.heard[key] = append(o.by.heard[key], request)
	o.by.mu.Unlock()
	return o.PointInTime.OpenDisk(ctx, key, request)
}

// What reads a disk to be sure leaves nothing out that the hypervisor holds for unused.
func TestTake_everything(t *testing.T) {
	t.Parallel()
	hv, vm := newTrackedVM(t)
	e := &eavesdropper{Fake: hv}
	m := newManager(e, openRepository(t))
	for _, step := range []struct {
		name    string
		request backup.Request
		missed  bool   // change tracking misses a write
		want    []bool // Everything, of each time that the disk is opened
	}{
		{name: "first", want: []bool{false}},
		{name: "incremental", want: []bool{false}},
		{name: "full", request: backup.Request{Mode: backup.ModeFull}, want: []bool{true}},
		{name: "incremental again", want: []bool{false}},
		{name: "due", request: backup.Request{FullEvery: 1}, want: []bool{true, true}},
		{name: "not due", request: backup.Request{FullEvery: 1}, want: []bool{false}},
		{name: "due, and it finds something", request: backup.Request{FullEvery: 1}, missed: true, want: []bool{true, true, true}},
	} {
		if step.missed {
			if err := hv.WriteDiskUnnoticed(vm.ID, 1, []byte(step.name), 2<<20); err != nil {
				t.Fatal(err)
			}
		}
		e.heard = map[hypervisor.DiskKey][]hypervisor.DiskRequest{}
		step.request.VM = "web"
		if _, err := m.Take(t.Context(), step.request); err != nil {
			t.Fatal(err)
		}
		var got []bool
		for _, request := range e.heard[vm.Disks[1].Key] {
			got = append(got, request.Everything)
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: everything is asked for %v, want %v", step.name, got, step.want)
		}
	}
}
