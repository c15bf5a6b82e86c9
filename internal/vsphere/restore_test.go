package vsphere

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// A bench is a lab with one VM, and a connection to it.
type bench struct {
	*testing.T
	lab    *lab.Lab
	client *Client
	vm     *hypervisor.VM
	raw    []string // what the VM's disks hold
}

const benchVM = "web01"

// newBench starts a lab with a VM that has disks of the given capacities.
func newBench(t *testing.T, capacities ...int64) *bench {
	t.Helper()
	b := &bench{T: t}
	for i, capacity := range capacities {
		b.raw = append(b.raw, labtest.RawDisk(t, capacity, uint64(i)+1))
	}
	b.lab = labtest.Start(t, lab.Options{})
	b.client = dial(t, labConfig(b.lab))
	if len(capacities) == 0 {
		return b
	}
	if err := b.lab.AddVM(t.Context(), lab.VMSpec{Name: benchVM, Disks: b.raw}); err != nil {
		t.Fatal(err)
	}
	b.find()
	return b
}

func labConfig(l *lab.Lab) Config {
	return Config{Server: l.URL().Host, User: l.User(), Password: secret.New(l.Password()), Thumbprint: l.Fingerprint(),
		Transports: []string{TransportExport}}
}

func (b *bench) find() {
	b.Helper()
	vm, err := b.client.FindVM(b.Context(), benchVM)
	if err != nil {
		b.Fatal(err)
	}
	b.vm = vm
}

// A memoryDisk holds the content of a disk, as a repository would.
type memoryDisk struct {
	capacity int64
	extents  []memoryExtent
}

type memoryExtent struct {
	offset int64
	data   []byte
}

func (m *memoryDisk) Capacity() int64 { return m.capacity }

func (m *memoryDisk) Extents(ctx context.Context, yield func(int64, []byte) error) error {
	for _, e := range m.extents {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(e.offset, e.data); err != nil {
			return err
		}
	}
	return nil
}

func readSource(ctx context.Context, src disk.Source) (*memoryDisk, error) {
	m := &memoryDisk{capacity: src.Capacity()}
	err := src.Extents(ctx, func(offset int64, data []byte) error {
		m.extents = append(m.extents, memoryExtent{offset, bytes.Clone(data)})
		return nil
	})
	return m, err
}

// A copyOfVM is what a backup holds.
type copyOfVM struct {
	config hypervisor.Config
	disks  map[hypervisor.DiskKey]*memoryDisk
}

// backUp copies the VM while it runs.
func (b *bench) backUp(ctx context.Context, exclude ...hypervisor.DiskKey) (_ *copyOfVM, err error) {
	point, err := b.client.OpenPointInTime(ctx, b.vm.ID, hypervisor.PointInTimeSpec{
		Name: "tf-backup-1", Description: "test", Exclude: exclude,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := point.Close(ctx); err == nil {
			err = closeErr
		}
	}()
	out := &copyOfVM{config: point.Config(), disks: map[hypervisor.DiskKey]*memoryDisk{}}
	group, groupCtx := errgroup.WithContext(ctx)
	results := make([]*memoryDisk, len(out.config.Summary.Disks))
	for i, d := range out.config.Summary.Disks {
		group.Go(func() error {
			src, err := point.OpenDisk(groupCtx, d.Key, hypervisor.DiskRequest{})
			if err != nil {
				return err
			}
			results[i], err = readSource(groupCtx, src)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, d := range out.config.Summary.Disks {
		out.disks[d.Key] = results[i]
	}
	return out, nil
}

func (b *bench) mustBackUp(exclude ...hypervisor.DiskKey) *copyOfVM {
	b.Helper()
	c, err := b.backUp(b.Context(), exclude...)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// restore rebuilds a VM from a copy.
func (b *bench) restore(ctx context.Context, c *copyOfVM, spec hypervisor.RestoreSpec) (_ *hypervisor.VM, _ []string, err error) {
	spec.Config = c.config
	if spec.RunID == "" {
		spec.RunID = "run-1"
	}
	r, err := b.client.StartRestore(ctx, spec)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if abortErr := r.Abort(ctx); abortErr != nil {
			err = fmt.Errorf("%w (abort: %w)", err, abortErr)
		}
	}()
	group, groupCtx := errgroup.WithContext(ctx)
	for key, d := range c.disks {
		group.Go(func() error { return r.WriteDisk(groupCtx, key, d) })
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	return r.Commit(ctx)
}

// sameBytes compares a disk of a VM in the lab with a raw file.
func (b *bench) sameBytes(vm string, index int, raw string) {
	b.Helper()
	f, err := os.Open(raw)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	want, got := make([]byte, 1<<20), make([]byte, 1<<20)
	for offset := int64(0); ; {
		n, err := io.ReadFull(f, want)
		if n == 0 {
			return
		}
		if readErr := b.lab.ReadDisk(vm, index, offset, got[:n]); readErr != nil {
			b.Fatal(readErr)
		}
		if !bytes.Equal(want[:n], got[:n]) {
			b.Fatalf("disk %d of %s differs in the MiB at %d", index, vm, offset)
		}
		offset += int64(n)
		if err != nil {
			return
		}
	}
}

func TestRestore_roundTrip(t *testing.T) {
	t.Parallel()
	b := newBench(t, 8<<20, 20<<20+512)
	c := b.mustBackUp()
	labtest.AssertClean(t, b.lab)
	if err := b.client.DestroyVM(t.Context(), b.vm.ID); err != nil {
		t.Fatal(err)
	}
	vm, warnings, err := b.restore(t.Context(), c, hypervisor.RestoreSpec{Identity: hypervisor.IdentityOriginal})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Errorf("warning: %s", w)
	}
	if vm.Name != benchVM || vm.BIOSUUID != b.vm.BIOSUUID || vm.Path != b.vm.Path {
		t.Errorf("got %+v, want %+v", vm, b.vm)
	}
	for i, raw := range b.raw {
		b.sameBytes(benchVM, i, raw)
	}
	labtest.AssertClean(t, b.lab)
}
