package hypervisortest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
)

// during is where a Fake is interrupted in the middle of a method.
var during = map[hypervisortest.Method]hypervisortest.Point{
	hypervisortest.CreateSnapshot:   hypervisortest.AfterCreateSnapshot,
	hypervisortest.RemoveSnapshot:   hypervisortest.AfterRemoveSnapshot,
	hypervisortest.RevertToSnapshot: hypervisortest.AfterRevertToSnapshot,
	hypervisortest.ShutDownGuest:    hypervisortest.DuringShutDownGuest,
	hypervisortest.OpenPointInTime:  hypervisortest.DuringOpenPointInTime,
	hypervisortest.ReadDisk:         hypervisortest.DuringRead,
	hypervisortest.StartRestore:     hypervisortest.DuringStartRestore,
	hypervisortest.WriteDisk:        hypervisortest.DuringWriteDisk,
	hypervisortest.StartInPlace:     hypervisortest.DuringStartInPlace,
	hypervisortest.Swap:             hypervisortest.DuringSwap,
	hypervisortest.Commit:           hypervisortest.AfterCommit,
}

func TestFake_conformance(t *testing.T) {
	t.Parallel()
	hypervisortest.Run(t, func(t *testing.T) hypervisortest.Harness {
		fake := hypervisortest.NewFake(t)
		find := func(t *testing.T, name string) hypervisor.VMID {
			t.Helper()
			vm, err := fake.FindVM(t.Context(), hypervisor.VMRef(name))
			if err != nil {
				t.Fatal(err)
			}
			return vm.ID
		}
		return hypervisortest.Harness{
			Hypervisor: fake,
			Connect:    func(*testing.T) hypervisor.Hypervisor { return fake },
			AddVM:      func(_ *testing.T, spec hypervisortest.VMSpec) { fake.AddVM(spec) },
			AddTwin:    func(_ *testing.T, name string) { fake.AddVM(hypervisortest.VMSpec{Name: name}) },
			WriteDisk: func(t *testing.T, vm string, n int, p []byte, off int64) {
				t.Helper()
				if err := fake.WriteDisk(find(t, vm), n, p, off); err != nil {
					t.Fatal(err)
				}
			},
			ReadDisk: func(t *testing.T, vm string, n int) []byte { t.Helper(); return fake.DiskBytes(find(t, vm), n) },
			Sabotage: hypervisortest.Saboteur{
				SetChangeTracking: func(t *testing.T, vm string, on bool) { t.Helper(); fake.SetChangeTracking(find(t, vm), on) },
				Revert: func(t *testing.T, vm string, id hypervisor.SnapshotID) {
					t.Helper()
					if err := fake.Revert(find(t, vm), id); err != nil {
						t.Fatal(err)
					}
				},
				Resize: func(t *testing.T, vm string, n int, capacity int64) {
					t.Helper()
					if err := fake.ResizeDisk(find(t, vm), n, capacity); err != nil {
						t.Fatal(err)
					}
				},
				FailChanges: func(*testing.T) {
					fake.Fail(hypervisortest.Fault{At: hypervisortest.BeforeChangedAreas, Err: errors.New("no such file")})
				},
			},
			Deny: func(_ *testing.T, operation hypervisor.Operation) hypervisor.Hypervisor {
				fake.Deny(operation)
				return fake
			},
			Leftovers: func(*testing.T) []string { return fake.Leftovers(hypervisortest.TemporaryPrefix) },
			Interrupt: func(_ *testing.T, method hypervisortest.Method, fn func()) bool {
				at, ok := during[method]
				if ok {
					fake.Fail(hypervisortest.Fault{At: at, Do: func(context.Context) { fn() }})
				}
				return ok
			},
		}
	})
}
