package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// verify reads the restored disks of a VM that is powered off as a backup would read them, and compares
// their digests with the backup's. Nothing of the way by which they were written has a part in that.
// exclude are disks of the VM that were not restored.
func (m *Manager) verify(
	ctx context.Context, j *job, this run.Run, vm hypervisor.VMID, exclude []hypervisor.DiskKey,
) (err error) {
	name, description, err := this.LabelSnapshot(run.VerifySnapshot, m.now())
	if err != nil {
		return err
	}
	m.log.InfoContext(ctx, "reading the restored disks back", "vm", j.name(), "snapshot", name)
	point, err := m.hv.OpenPointInTime(ctx, vm, hypervisor.PointInTimeSpec{
		Name: name, Description: description, Exclude: exclude, ChangeTracking: hypervisor.TrackingIgnore,
	})
	if err != nil {
		return fmt.Errorf("open the VM to read its disks back: %w", err)
	}
	defer func() {
		if closeErr := point.Close(ctx); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("after reading the disks back: %w", closeErr))
		}
	}()
	have, want := point.Config().Summary.Disks, make([]hypervisor.Disk, len(j.disks))
	for i, d := range j.disks {
		want[i] = portDisk(d)
	}
	var count meter
	ctx, phase := m.follow(ctx, "reading the disks back", j, &count)
	defer phase.Leave()
	group, groupCtx := errgroup.WithContext(ctx)
	for i, n := range matchDisks(have, want) {
		group.Go(func() error {
			if n < 0 {
				return fmt.Errorf("read %s back: the VM has no such disk", want[i].Label)
			}
			return readBack(groupCtx, point, have[n], j.disks[i], &count)
		})
	}
	return group.Wait()
}

// readBack compares one disk with what was backed up.
func readBack(
	ctx context.Context, point hypervisor.PointInTime, d hypervisor.Disk, want repository.Disk, count *meter,
) error {
	reader, err := point.OpenDisk(ctx, d.Key, hypervisor.DiskRequest{Everything: true})
	if err != nil {
		return fmt.Errorf("read %s back: %w", d.Label, err)
	}
	got, err := digestOf(ctx, reader, count)
	if err != nil {
		return fmt.Errorf("read %s back: %w", d.Label, err)
	}
	if got != want.Digest {
		return &VerifyError{Disk: fmt.Sprintf("%s (%s)", d.Label, d.Address), Want: string(want.Digest), Got: string(got)}
	}
	return nil
}

// digestOf reads a disk to its end, with one block of it in memory.
func digestOf(ctx context.Context, src disk.Source, count *meter) (disk.Digest, error) {
	digester := disk.NewDigester(src.Capacity())
	block, number := make([]byte, disk.BlockSize), int64(-1)
	flush := func() {
		size := min(disk.BlockSize, src.Capacity()-number*disk.BlockSize)
		if number >= 0 && !disk.IsZero(block[:size]) {
			digester.Add(number, disk.HashBlock(block[:size]))
		}
	}
	err := src.Extents(ctx, func(offset int64, data []byte) error {
		count.written.Add(int64(len(data)))
		for len(data) > 0 {
			if n := offset / disk.BlockSize; n != number {
				flush()
				clear(block)
				number = n
			}
			n := copy(block[offset%disk.BlockSize:], data)
			data, offset = data[n:], offset+int64(n)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	flush()
	return digester.Digest(), nil
}

// matchDisks finds for each captured disk the one of a VM that has its content: that with its UUID or, as
// copies have UUIDs of their own, that at its address. It returns indexes; -1: there is none.
func matchDisks(have, captured []hypervisor.Disk) []int {
	found := make([]int, len(captured))
	for i, c := range captured {
		found[i] = slices.IndexFunc(have, func(d hypervisor.Disk) bool {
			return c.UUID != "" && strings.EqualFold(d.UUID, c.UUID)
		})
	}
	for i, c := range captured {
		if found[i] >= 0 {
			continue
		}
		n := slices.IndexFunc(have, func(d hypervisor.Disk) bool { return d.Address == c.Address })
		if n >= 0 && !slices.Contains(found, n) {
			found[i] = n
		}
	}
	return found
}
