package vsphere

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// unfinished are the VMs in the making, as another client sees them.
func (b *bench) unfinished(ctx context.Context) (all []hypervisor.Unfinished) {
	b.Helper()
	removed, err := b.client.CleanUpRestores(ctx, func(u hypervisor.Unfinished) bool {
		all = append(all, u)
		return false
	})
	if err != nil || len(removed) > 0 {
		b.Errorf("removed %q, %v", removed, err)
	}
	return all
}

// makingLease is that of the only VM in the making.
func (b *bench) makingLease(ctx context.Context) string {
	b.Helper()
	all := b.unfinished(ctx)
	if len(all) != 1 || all[0].Name != makingName("run-1") || all[0].RunID != "run-1" {
		b.Fatalf("%+v", all)
	}
	return all[0].Lease
}

// A restore shows that it lives from when nothing but its run keeps the VM, for as long as that takes, and leaves
// nothing of it to the finished VM. However often that is, it gets in the way of no step.
func TestRestore_lease(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1<<20)
	c := b.mustBackUp()
	ticks := b.tick()
	var stop func() int
	spec := hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Name: "copy"}
	spec.Verify = func(ctx context.Context, _ hypervisor.VMID) error {
		first := b.makingLease(ctx)
		ticked(t, ticks)
		second := b.makingLease(ctx)
		if first == "" || !strings.HasPrefix(second, "run-1 ") || first == second {
			t.Errorf("the lease was %q and is %q", first, second)
		}
		b.lab.Fault(lab.Fault{Method: "ReconfigVM_Task", Fault: "InvalidState"})
		ticked(t, ticks) // one of them fails
		ticked(t, ticks)
		if b.makingLease(ctx) == second {
			t.Errorf("after a failure the lease still is %q", second)
		}
		stop = tickOn(ticks)
		return nil
	}
	b.lab.OnCall("POST /nfc", func(ctx context.Context) {
		if lease := b.makingLease(context.WithoutCancel(ctx)); lease != "" {
			t.Errorf("while the server keeps the VM there is the lease %q", lease)
		}
	})
	vm, warnings, err := b.restore(t.Context(), c, spec)
	if err != nil || len(warnings) > 0 || stop == nil {
		t.Fatalf("%q, %v", warnings, err)
	}
	stop()
	read := b.read(t.Context(), vm.ID)
	for path, value := range read {
		if strings.Contains(value, "terraform.vm.") || strings.Contains(path, "terraform.vm.") {
			t.Errorf("%s is %s", path, value)
		}
	}
	labtest.AssertClean(t, b.lab)
}

// A VM in the making is taken away only from whoever hasn't renewed its lease, and he finds out.
func TestRestore_takenAway(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"verifying", "renewing", "at its end"} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 1<<20)
			c := b.mustBackUp()
			ticks := b.tick()
			other := dial(t, labConfig(b.lab))
			take := func(seen func()) ([]string, error) {
				return other.CleanUpRestores(t.Context(), func(u hypervisor.Unfinished) bool {
					seen()
					return u.Lease != ""
				})
			}
			spec := hypervisor.RestoreSpec{Identity: hypervisor.IdentityCopy, Name: "copy"}
			spec.Verify = func(ctx context.Context, _ hypervisor.VMID) error {
				removed, err := take(func() { ticked(t, ticks) })
				if err != nil || len(removed) > 0 {
					t.Errorf("removed %q, which was renewed meanwhile, %v", removed, err)
				}
				if stage == "at its end" {
					// Whoever takes it away has said so, and has not come further when the VM is to get its name.
					b.lab.Fault(lab.Fault{Method: "Destroy_Task", Fault: "call:NoPermission"})
				}
				for err == nil && len(removed) == 0 { // the last renewal may be under way
					removed, err = take(func() {})
				}
				if (err != nil) != (stage == "at its end") {
					t.Errorf("removed %q, %v", removed, err)
				}
				if stage == "renewing" {
					select {
					case ticks <- time.Time{}:
						<-ctx.Done()
					case <-ctx.Done():
					}
					return context.Cause(ctx)
				}
				return nil
			}
			_, _, err := b.restore(t.Context(), c, spec)
			var notFound *hypervisor.VMNotFoundError
			if !errors.Is(err, hypervisor.ErrTakenOver) && !errors.As(err, &notFound) && !vmGone(err) {
				t.Errorf("error %v", err)
			}
			if stage == "at its end" && !errors.Is(err, hypervisor.ErrTakenOver) {
				t.Errorf("error %v", err)
			}
			if vms := b.lab.Status().VMs; len(vms) != 1 {
				t.Errorf("%d VMs", len(vms))
			}
			labtest.AssertClean(t, b.lab)
		})
	}
}
