package hypervisortest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

var errStop = errors.New("the reader has seen enough")

var pointInTimeTests = []suiteTest{
	{"point in time/isolated from the guest", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		want := s.disks(t, "vm1")
		p := s.open(t, vm, hypervisor.PointInTimeSpec{Description: "d"})
		if snap := p.Snapshot(); snap.CreatedAt.IsZero() || snap.Quiesced {
			t.Errorf("snapshot %+v", snap)
		}
		for n := range capacities {
			s.WriteDisk(t, "vm1", n, bytes.Repeat([]byte{0xee}, 300_000), 123_456)
		}
		later := s.disks(t, "vm1")
		wantBytes(t, "point in time", readAll(t, p), want)
		closePoint(t, p)
		wantBytes(t, "the VM afterwards", s.disks(t, "vm1"), later)
		if all := s.snapshots(t, vm); len(all) > 0 {
			t.Errorf("snapshots %+v", all)
		}
	}},
	{"point in time/configuration", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		p := s.open(t, vm, hypervisor.PointInTimeSpec{Quiesce: &hypervisor.Quiesce{}})
		c := p.Config()
		if c.Format == "" || len(c.Data) == 0 || c.Summary.InstanceUUID != vm.InstanceUUID || c.Summary.PowerState != hypervisor.PoweredOn {
			t.Errorf("configuration %q, %d bytes, %+v", c.Format, len(c.Data), c.Summary)
		}
		if !p.Snapshot().Quiesced {
			t.Error("not quiesced")
		}
		for n, d := range c.Summary.Disks {
			if was := vm.Disks[n]; d.Key != was.Key || d.UUID != was.UUID || d.Capacity != was.Capacity || d.Label != was.Label || d.Address != was.Address {
				t.Errorf("disk %d: %+v, was %+v", n, d, was)
			}
		}
		closePoint(t, p)
	}},
	{"point in time/on top of snapshots", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		s.snapshot(t, vm, hypervisor.SnapshotSpec{Name: "a"})
		s.WriteDisk(t, "vm1", 0, pattern(5, 1<<20), 1<<20)
		want := s.disks(t, "vm1")
		p := s.open(t, vm, hypervisor.PointInTimeSpec{})
		wantBytes(t, "point in time", readAll(t, p), want)
		closePoint(t, p)
		if all := s.snapshots(t, vm); len(all) != 1 || all[0].Name != "a" {
			t.Errorf("snapshots %+v", all)
		}
	}},
	{"point in time/of a VM that is off", func(t *testing.T, s *suite) {
		vm := s.add(t, VMSpec{Name: "vm1", PoweredOff: true, Disks: [][]byte{pattern(1, capacities[0]), make([]byte, capacities[1])}})
		want := s.disks(t, "vm1")
		p := s.open(t, vm, hypervisor.PointInTimeSpec{})
		wantBytes(t, "point in time", readAll(t, p), want)
		closePoint(t, p)
	}},
	{"point in time/excluded disk", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		want := s.disks(t, "vm1")[1:]
		p := s.open(t, vm, hypervisor.PointInTimeSpec{Exclude: []hypervisor.DiskKey{vm.Disks[0].Key}})
		if disks := p.Config().Summary.Disks; len(disks) != 1 || disks[0].Key != vm.Disks[1].Key {
			t.Errorf("disks %+v", disks)
		}
		wantBytes(t, "point in time", readAll(t, p), want)
		if _, err := p.OpenDisk(t.Context(), vm.Disks[0].Key, hypervisor.DiskRequest{}); err == nil {
			t.Error("the excluded disk could be opened")
		}
		closePoint(t, p)
	}},
	{"point in time/close", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		p := s.open(t, vm, hypervisor.PointInTimeSpec{})
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Close(cancelled); err != nil {
			t.Errorf("close on a cancelled context: %v", err)
		}
		for range 2 {
			if err := p.Close(t.Context()); err != nil {
				t.Errorf("close again: %v", err)
			}
		}
		if _, err := readDisk(t.Context(), p, vm.Disks[0].Key); err == nil {
			t.Error("a disk could be read after Close")
		}
	}},
	{"point in time/reader stops", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		p := s.open(t, vm, hypervisor.PointInTimeSpec{})
		src, err := p.OpenDisk(t.Context(), vm.Disks[0].Key, hypervisor.DiskRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if err := src.Extents(t.Context(), func(int64, []byte) error { return errStop }); err != errStop { //nolint:errorlint // returned as it is
			t.Errorf("got error %v, want the reader's, as it is", err)
		}
		// The other disk is not affected.
		got, err := readDisk(t.Context(), p, vm.Disks[1].Key)
		if err != nil || !bytes.Equal(got, s.ReadDisk(t, "vm1", 1)) {
			t.Errorf("the other disk: %d bytes, %v", len(got), err)
		}
		closePoint(t, p)
	}},
	{"point in time/two at once", func(t *testing.T, s *suite) {
		vm1, vm2 := s.vm(t, "vm1"), s.vm(t, "vm2")
		s.WriteDisk(t, "vm2", 0, pattern(6, 1<<20), 0)
		want1, want2 := s.disks(t, "vm1"), s.disks(t, "vm2")
		p1, p2 := s.open(t, vm1, hypervisor.PointInTimeSpec{}), s.open(t, vm2, hypervisor.PointInTimeSpec{})
		wantBytes(t, "second", readAll(t, p2), want2)
		wantBytes(t, "first", readAll(t, p1), want1)
		closePoint(t, p1)
		closePoint(t, p2)
	}},
	{"point in time/gone", func(t *testing.T, s *suite) {
		vm := s.vm(t, "vm1")
		if err := s.Hypervisor.DestroyVM(t.Context(), vm.ID); err != nil {
			t.Fatal(err)
		}
		_, err := s.Hypervisor.OpenPointInTime(t.Context(), vm.ID, hypervisor.PointInTimeSpec{Name: TemporaryPrefix})
		wantNotFound(t, "open", err)
	}},
}
