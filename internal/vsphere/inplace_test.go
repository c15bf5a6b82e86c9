package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/vmware/govmomi/vim25/mo"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// An inPlaceBench is a running VM whose disks have changed since it was backed up.
type inPlaceBench struct {
	*bench
	backup *copyOfVM
	before [][]byte // as backed up
	after  [][]byte // as they are now
}

func newInPlaceBench(t *testing.T, capacities ...int64) *inPlaceBench {
	t.Helper()
	b := &inPlaceBench{bench: newBench(t, capacities...)}
	b.backup = b.mustBackUp()
	b.before = b.content()
	for n := range capacities {
		for _, off := range []int64{512, capacities[n] / 2, capacities[n] - 4096} {
			if err := b.lab.WriteDisk(benchVM, n, off, []byte(fmt.Sprintf("written to disk %d since", n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.after = b.content()
	for n := range capacities {
		if bytes.Equal(b.before[n], b.after[n]) {
			t.Fatal("the guest wrote nothing")
		}
	}
	return b
}

// content reads all disks of the VM.
func (b *inPlaceBench) content() (all [][]byte) {
	b.Helper()
	for n := range b.raw {
		all = append(all, readLabDisk(b.T, b.lab, benchVM, n))
	}
	return all
}

func (b *inPlaceBench) spec(run string) hypervisor.InPlaceSpec {
	return hypervisor.InPlaceSpec{VM: b.vm.ID, Config: b.backup.config, RunID: run}
}

// write writes all disks that a restore is of.
func (b *inPlaceBench) write(ctx context.Context, r hypervisor.InPlaceRestore, spec hypervisor.InPlaceSpec) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for key, d := range b.backup.disks {
		if spec.Disks == nil || slices.Contains(spec.Disks, key) {
			group.Go(func() error { return r.WriteDisk(groupCtx, key, d) })
		}
	}
	return group.Wait()
}

// An outcome is what a restore in place came to.
type outcome struct {
	vm       *hypervisor.VM
	replaced []hypervisor.Replaced
	warnings []string
}

// inPlace carries a restore in place out as its callers do: what failed before the swap is aborted, what
// failed after it is put back and aborted.
func (b *inPlaceBench) inPlace(ctx context.Context, spec hypervisor.InPlaceSpec) (out outcome, err error) {
	r, err := b.client.StartInPlace(ctx, spec)
	if err != nil {
		return out, err
	}
	defer func() {
		if abortErr := r.Abort(ctx); abortErr != nil {
			err = errors.Join(err, fmt.Errorf("abort: %w", abortErr))
		}
	}()
	if err := b.write(ctx, r, spec); err != nil {
		return out, err
	}
	out.vm, out.replaced, out.warnings, err = r.Swap(ctx)
	var swapped *hypervisor.SwappedError
	if errors.As(err, &swapped) {
		if backErr := r.Back(context.WithoutCancel(ctx)); backErr != nil {
			return out, errors.Join(err, fmt.Errorf("back: %w", backErr))
		}
	}
	if err != nil {
		return out, err
	}
	return out, r.Finish(ctx, nil)
}

func (b *inPlaceBench) mustInPlace(spec hypervisor.InPlaceSpec) outcome {
	b.Helper()
	out, err := b.inPlace(b.Context(), spec)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// sameContent compares the VM's disks as a set.
func (b *inPlaceBench) sameContent(what string, want [][]byte) {
	b.Helper()
	for n, got := range b.content() {
		if !bytes.Equal(got, want[n]) {
			b.Errorf("%s: disk %d is not as it should be", what, n)
		}
	}
}

// power is whether the VM runs.
func (b *inPlaceBench) power() string {
	b.Helper()
	return b.status(benchVM).PowerState
}

// untouched checks that nothing of a restore is left: no VM, no journal, no file.
func (b *inPlaceBench) untouched() {
	b.Helper()
	labtest.AssertClean(b.T, b.lab) // waits for what ends by itself
	b.noTraces()
}

// noTraces checks that no VM in the making and no journal is left.
func (b *inPlaceBench) noTraces() {
	b.Helper()
	if vms := b.lab.Status().VMs; len(vms) != 1 {
		b.Errorf("%d VMs", len(vms))
	}
	var vm mo.VirtualMachine
	if err := b.client.properties(b.Context(), vmRef(b.vm.ID), []string{"config.extraConfig"}, &vm); err != nil {
		b.Fatal(err)
	}
	for _, o := range vm.Config.ExtraConfig {
		if key := o.GetOptionValue().Key; strings.HasPrefix(key, "terraform.") {
			b.Errorf("the VM has the option %s: %v", key, o.GetOptionValue().Value)
		}
	}
	for _, f := range b.lab.Status().Files {
		if strings.Contains(f.Name, makingPrefix) || strings.Contains(f.Name, "before-restore") {
			b.Errorf("left behind: %s", f.Name)
		}
	}
}

// recover ends the restore in place of a VM for a process that knows nothing of it.
func (b *inPlaceBench) recover(ctx context.Context, id hypervisor.VMID) (*hypervisor.VM, []hypervisor.Replaced, []string, error) {
	b.Helper()
	found, err := b.client.InterruptedInPlace(b.Context(), id)
	must(b.T, err)
	if found == nil {
		found = &hypervisor.Interrupted{}
	}
	return b.client.RecoverInPlace(ctx, id, *found, "run-recovery-"+found.Holder)
}

func (b *inPlaceBench) deleteReplaced(replaced []hypervisor.Replaced) {
	b.Helper()
	if err := b.client.DeleteReplaced(b.Context(), b.vm.ID, replaced); err != nil {
		b.Error(err)
	}
}

func TestInPlace(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 4<<20, 6<<20+512)
	was := b.status(benchVM)
	for round := range 3 { // each on top of what the one before has left
		spec := b.spec(fmt.Sprintf("run-%d", round))
		warnings, err := b.client.CheckInPlace(t.Context(), spec)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("check: %q, %v", warnings, err)
		}
		out := b.mustInPlace(spec)
		if len(out.warnings) > 0 {
			t.Errorf("warnings %q", out.warnings)
		}
		b.sameContent("restored", b.before)
		b.noTraces()
		if out.vm.PowerState != hypervisor.PoweredOff || out.vm.InstanceUUID != b.vm.InstanceUUID || len(out.replaced) != 2 {
			t.Errorf("got %+v, replaced %+v", out.vm, out.replaced)
		}
		for n, d := range b.status(benchVM).Disks {
			if d.Key != was.Disks[n].Key || d.UUID != was.Disks[n].UUID || d.Controller != was.Disks[n].Controller ||
				d.File != out.replaced[n].Now || d.Mode != was.Disks[n].Mode {
				t.Errorf("disk %d is %+v, was %+v", n, d, was.Disks[n])
			}
			if strings.Count(d.File, "-restored-") != 1 {
				t.Errorf("disk %d is in %s", n, d.File)
			}
		}
		b.deleteReplaced(out.replaced)
		b.deleteReplaced(out.replaced) // they are gone, which is no error
		b.untouched()
		if err := b.client.PowerOn(t.Context(), b.vm.ID); err != nil {
			t.Fatal(err)
		}
		if err := b.lab.WriteDisk(benchVM, 0, 0, []byte("the guest goes on")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.client.DeleteReplaced(t.Context(), b.vm.ID, []hypervisor.Replaced{{Path: b.status(benchVM).Disks[0].File}}); err == nil {
		t.Error("a disk was deleted that the VM has")
	}
	b.mustBackUp()
}

func TestInPlace_back(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 4<<20, 6<<20)
	was := b.read(t.Context(), b.vm.ID)
	r, err := b.client.StartInPlace(t.Context(), b.spec("run-1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.write(t.Context(), r, b.spec("run-1")); err != nil {
		t.Fatal(err)
	}
	b.sameContent("before the swap", b.after)
	if b.power() != "poweredOn" {
		t.Errorf("the VM is %s before the swap", b.power())
	}
	if _, _, _, err := r.Swap(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.sameContent("swapped", b.before)
	if err := r.Back(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.sameContent("back", b.after)
	if err := r.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Abort(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	b.sameContent("aborted", b.after)
	if b.power() != "poweredOn" {
		t.Errorf("the VM is %s", b.power())
	}
	b.untouched()
	if d := differ(was, b.read(t.Context(), b.vm.ID), always); len(d) > 0 {
		t.Errorf("not as before: %q", d)
	}
}

func TestInPlace_subset(t *testing.T) {
	t.Parallel()
	b := newInPlaceBench(t, 4<<20, 6<<20, 2<<20)
	spec := b.spec("run-1")
	spec.Disks = []hypervisor.DiskKey{b.backup.config.Summary.Disks[1].Key}
	out := b.mustInPlace(spec)
	b.sameContent("subset", [][]byte{b.after[0], b.before[1], b.after[2]})
	b.deleteReplaced(out.replaced)
	b.untouched()
	spec.Disks = []hypervisor.DiskKey{"4711"}
	var unavailable *hypervisor.NotAvailableError
	if _, err := b.client.CheckInPlace(t.Context(), spec); !errors.As(err, &unavailable) {
		t.Errorf("got %v", err)
	}
}
