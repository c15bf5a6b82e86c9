// Package backuptest plays the life of a virtual machine that is backed up again and again, at random, and
// compares every restore point with what the disks were. It runs on any hypervisor.
package backuptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A World is a virtual machine and what happens to it. The machine is driven from one goroutine, except that
// Write is also called while a backup reads.
type World interface {
	// Hypervisor is how backups see the machine.
	Hypervisor() backup.Hypervisor

	// VM is the machine as it is, with the capacities of its disks.
	VM() hypervisor.VM

	// Write plays the guest, which writes to its n-th disk.
	Write(n int, p []byte, offset int64) error

	// Content is all of the n-th disk as the guest sees it.
	Content(n int) ([]byte, error)

	// Revert brings the machine back to a snapshot.
	Revert(id hypervisor.SnapshotID) error

	// Grow makes the n-th disk larger. It is called only while there are no snapshots.
	Grow(n int, capacity int64) error

	// ResetTracking makes change tracking begin anew, as an administrator or a crash does.
	ResetTracking() error
}

// Options of a run.
type Options struct {
	Seed  uint64
	Steps int
	// MaxCapacity bounds the growth of disks, in bytes.
	MaxCapacity int64
	// MaxSnapshots bounds the snapshots of others.
	MaxSnapshots int
}

// A Summary counts what happened.
type Summary struct {
	Backups, Failed, Incremental, Full, Deleted, Compared int
	Steps                                                 map[string]int
}

// errFault is what fails on purpose.
var errFault = errors.New("failed on purpose")

// A point is a restore point and what has to be in it, by UUID of the disk.
type point struct {
	id    repository.ID
	disks map[string][]byte
}

type history struct {
	t       *testing.T
	world   World
	repo    *repository.Repository
	options Options
	random  *rand.Rand
	flaky   *flaky
	manager *backup.Manager
	points  []point

	hotDisk   int // where the guest writes most
	hotOffset int64

	summary Summary
}

// Run plays a life in so many steps, and fails the test if a restore point isn't what the disks were. With
// the same seed, it takes the same steps.
func Run(t *testing.T, world World, repo *repository.Repository, options Options) Summary {
	t.Helper()
	h := &history{
		t: t, world: world, repo: repo, options: options, flaky: &flaky{Hypervisor: world.Hypervisor()},
		random:  rand.New(rand.NewPCG(options.Seed, 0)),
		summary: Summary{Steps: map[string]int{}},
	}
	h.manager = backup.New(h.flaky, repo, slog.New(slog.DiscardHandler), time.Now, "test")
	defer func() {
		if t.Failed() {
			t.Logf("seed %d, after %+v", options.Seed, h.summary)
		}
	}()
	for range options.Steps {
		name, err := h.step()
		h.summary.Steps[name]++
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, p := range h.points {
		h.compare(p)
	}
	return h.summary
}

// step does one thing, each with a likelihood of its own.
func (h *history) step() (string, error) {
	steps := []struct {
		name  string
		times int
		do    func() error
	}{
		{"write", 3000, h.write},
		{"back up", 120, func() error { return h.backUp(false) }},
		{"back up with a fault", 60, func() error { return h.backUp(true) }},
		{"snapshot", 50, h.snapshot},
		{"remove a snapshot", 45, h.removeSnapshot},
		{"revert", 12, h.revert},
		{"grow", 6, h.grow},
		{"reset tracking", 5, h.world.ResetTracking},
		{"delete a restore point", 60, h.delete},
		{"compare a restore point", 25, h.look},
	}
	sum := 0
	for _, s := range steps {
		sum += s.times
	}
	n := h.random.IntN(sum)
	for _, s := range steps {
		if n -= s.times; n < 0 {
			return s.name, s.do()
		}
	}
	return "", nil
}

// data is what a guest writes: little of it, much of it, or zeros.
func (h *history) data(capacity int64) (p []byte, offset int64) {
	offset = h.random.Int64N(capacity)
	length := 1 + h.random.Int64N(5000)
	if h.random.IntN(10) == 0 {
		length = h.random.Int64N(3 << 20)
	}
	if h.random.IntN(3) == 0 {
		offset -= offset % (64 << 10)
	}
	p = make([]byte, min(length, capacity-offset))
	if h.random.IntN(4) > 0 {
		for i := range p { // something that can be compressed
			p[i] = byte(i>>4) ^ byte(length)
		}
		p[0] = byte(h.random.Uint32())
	}
	return p, offset
}

// write writes to one place again and again for a while, and now and then somewhere else.
func (h *history) write() error {
	disks := h.world.VM().Disks
	n := h.random.IntN(len(disks))
	p, offset := h.data(disks[n].Capacity)
	if h.random.IntN(12) == 0 {
		h.hotDisk, h.hotOffset = n, offset
	} else {
		n = h.hotDisk // which a revert may have made smaller
		offset = min(max(h.hotOffset-h.random.Int64N(100_000), 0), disks[n].Capacity-1)
		p = p[:min(int64(len(p)), disks[n].Capacity-offset)]
	}
	return h.world.Write(n, p, offset)
}

func (h *history) content() (map[string][]byte, error) {
	all := map[string][]byte{}
	for n, d := range h.world.VM().Disks {
		b, err := h.world.Content(n)
		if err != nil {
			return nil, err
		}
		all[d.UUID] = b
	}
	return all, nil
}

// request is a random one.
func (h *history) request() backup.Request {
	r := backup.Request{VM: hypervisor.VMRef(h.world.VM().InstanceUUID), ChangeTracking: hypervisor.TrackingEnable, FullEvery: 8}
	switch h.random.IntN(12) {
	case 0:
		r.Mode = backup.ModeFull
	case 1:
		r.ChangeTracking = hypervisor.TrackingIgnore
	case 2:
		r.ExcludeDisks = []string{h.world.VM().Disks[0].Address}
	case 3:
		r.FullEvery = -1
	}
	if h.random.IntN(8) == 0 {
		r.Recheck = backup.RecheckSample
	}
	return r
}

// backUp takes a backup while the guest writes on, maybe with something that goes wrong.
func (h *history) backUp(fault bool) error {
	request := h.request()
	want, err := h.content()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	disks := h.world.VM().Disks
	n := h.random.IntN(len(disks))
	p, offset := h.data(disks[n].Capacity)
	h.flaky.arm(func() error { return h.world.Write(n, p, offset) })
	if fault {
		fails := func() error { return errFault }
		if h.random.IntN(3) == 0 {
			fails = func() error { cancel(); return nil }
		}
		h.flaky.fail(h.random.IntN(60), fails)
	}
	result, err := h.manager.Take(ctx, request)
	h.flaky.disarm()
	if err != nil {
		h.summary.Failed++
		if !fault || !errors.Is(err, errFault) && !errors.Is(err, context.Canceled) {
			return err
		}
		return h.listed()
	}
	for _, warning := range result.Warnings {
		if strings.Contains(warning, repository.ErrTrackingWrong.Error()) { // it left out nothing
			return errors.New(warning)
		}
	}
	h.summary.Backups++
	if result.Manifest.Incremental {
		h.summary.Incremental++
	} else {
		h.summary.Full++
	}
	made := point{id: result.ID, disks: want}
	h.points = append(h.points, made)
	h.compare(made)
	return nil
}

// listed sees to it that exactly the restore points are there that should be.
func (h *history) listed() error {
	points, err := h.repo.List(h.t.Context(), repository.Filter{})
	if err != nil {
		return err
	}
	want := map[repository.ID]bool{}
	for _, p := range h.points {
		want[p.id] = true
	}
	for _, p := range points {
		if !want[p.ID] {
			return fmt.Errorf("restore point %s should not be there", p.ID)
		}
		delete(want, p.ID)
	}
	if len(want) > 0 {
		return fmt.Errorf("restore points are gone: %v", slices.Collect(maps.Keys(want)))
	}
	return nil
}

// compare compares a restore point with what the disks were.
func (h *history) compare(p point) {
	h.t.Helper()
	h.summary.Compared++
	manifest, err := h.repo.Get(h.t.Context(), p.id)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, d := range manifest.Disks {
		want, ok := p.disks[d.UUID]
		if !ok || d.Capacity != int64(len(want)) {
			h.t.Fatalf("restore point %s: %+v of %d disks", p.id, d, len(p.disks))
		}
		reader, err := h.repo.OpenDisk(h.t.Context(), p.id, d)
		if err != nil {
			h.t.Fatal(err)
		}
		got := make([]byte, d.Capacity)
		if err := reader.Extents(h.t.Context(), func(offset int64, data []byte) error {
			copy(got[offset:], data)
			return nil
		}); err != nil {
			h.t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			at := 0
			for got[at] == want[at] {
				at++
			}
			h.t.Fatalf("restore point %s: %s (parent %q, %d times incremental) differs from what the disk was at byte %d",
				p.id, d.File, d.Parent, d.Incrementals, at)
		}
	}
}

func (h *history) snapshots() ([]hypervisor.Snapshot, error) {
	return h.world.Hypervisor().Snapshots(h.t.Context(), h.world.VM().ID)
}

func (h *history) snapshot() error {
	all, err := h.snapshots()
	if err != nil || len(all) >= h.options.MaxSnapshots {
		return err
	}
	_, err = h.world.Hypervisor().CreateSnapshot(h.t.Context(), h.world.VM().ID,
		hypervisor.SnapshotSpec{Name: fmt.Sprintf("other-%d", h.summary.Steps["snapshot"])})
	return err
}

func (h *history) removeSnapshot() error {
	all, err := h.snapshots()
	if err != nil || len(all) == 0 {
		return err
	}
	return h.world.Hypervisor().RemoveSnapshot(h.t.Context(), h.world.VM().ID, all[h.random.IntN(len(all))].ID,
		hypervisor.RemoveOptions{Children: h.random.IntN(2) == 0})
}

func (h *history) revert() error {
	all, err := h.snapshots()
	if err != nil || len(all) == 0 {
		return err
	}
	return h.world.Revert(all[h.random.IntN(len(all))].ID)
}

func (h *history) grow() error {
	all, err := h.snapshots()
	if err != nil || len(all) > 0 {
		return err
	}
	disks := h.world.VM().Disks
	n := h.random.IntN(len(disks))
	capacity := disks[n].Capacity + 512*(1+h.random.Int64N(2<<11))
	if capacity > h.options.MaxCapacity {
		return nil
	}
	return h.world.Grow(n, capacity)
}

// delete deletes a restore point, half of the times the newest, which would be the next parent.
func (h *history) delete() error {
	if len(h.points) == 0 {
		return nil
	}
	i := h.random.IntN(len(h.points))
	if h.random.IntN(2) == 0 {
		i = len(h.points) - 1
	}
	id := h.points[i].id
	h.points = slices.Delete(h.points, i, i+1)
	h.summary.Deleted++
	if err := h.repo.Delete(h.t.Context(), id); err != nil {
		return err
	}
	return h.listed()
}

// look compares an old restore point.
func (h *history) look() error {
	if len(h.points) > 0 {
		h.compare(h.points[h.random.IntN(len(h.points))])
	}
	return nil
}
