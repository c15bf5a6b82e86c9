package snapshot_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/snapshot"
)

// changing are the points at which something is done to a VM.
var changing = []hypervisortest.Point{
	hypervisortest.BeforeCreateSnapshot, hypervisortest.BeforeRemoveSnapshot, hypervisortest.BeforeRenameSnapshot,
	hypervisortest.BeforeRevertToSnapshot, hypervisortest.BeforeConsolidate, hypervisortest.BeforePowerOn, hypervisortest.BeforePowerOff, hypervisortest.BeforeShutDownGuest,
}

func changes(hv *hypervisortest.Fake) (n int) {
	for _, p := range changing {
		n += hv.Seen(p)
	}
	return n
}

// TestPrivileges: what a user may not do to the end isn't begun.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		memory bool // of the snapshots that there are
		do     func(t *testing.T, b *tierBench) error
		lacks  []hypervisor.Operation // each of which is refused
	}{
		"take": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.Take(t.Context(), snapshot.Request{VM: hypervisor.VMRef(b.vms[0].ID), Name: "s"})
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToSnapshot},
		},
		"take or leave nothing": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.TakeOrNothing(t.Context(), snapshot.Request{VM: hypervisor.VMRef(b.vms[0].ID), Name: "s"})
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToSnapshot, hypervisor.ToRemoveSnapshot},
		},
		"consolidate": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.Consolidate(t.Context(), hypervisor.VMRef(b.vms[0].ID))
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToConsolidate},
		},
		"take after a shutdown": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.Take(t.Context(), snapshot.Request{VM: hypervisor.VMRef(b.vms[0].ID), Name: "s", ShutDown: true})
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToSnapshot, hypervisor.ToPowerOff, hypervisor.ToPowerOn},
		},
		"take quiesced": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.Take(t.Context(), snapshot.Request{VM: hypervisor.VMRef(b.vms[0].ID), Name: "s",
					Quiesce: quiesce.Policy{Mode: quiesce.Required}})
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToSnapshot},
		},
		"take a set": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.TakeSet(t.Context(), setOf(b.vms))
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToSnapshot, hypervisor.ToRemoveSnapshot, hypervisor.ToRenameSnapshot},
		},
		"revert and start": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.Revert(t.Context(), snapshot.RevertRequest{Snapshot: b.r.Members[0].Snapshot, Power: snapshot.On})
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToRevert, hypervisor.ToPowerOn},
		},
		"revert and stay off": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.Revert(t.Context(), snapshot.RevertRequest{Snapshot: b.r.Members[0].Snapshot, Power: snapshot.Off})
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToRevert},
		},
		"revert a running one and stop it": {
			memory: true,
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.Revert(t.Context(), snapshot.RevertRequest{Snapshot: b.r.Members[0].Snapshot, Power: snapshot.Off})
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToRevert, hypervisor.ToPowerOff},
		},
		"revert a set": {
			do: func(t *testing.T, b *tierBench) error {
				t.Helper()
				_, err := b.m.RevertSet(t.Context(), b.r)
				return err
			},
			lacks: []hypervisor.Operation{hypervisor.ToRevert, hypervisor.ToPowerOff, hypervisor.ToPowerOn},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTierBench(t, 2, c.memory)
			before := changes(b.hv)
			for _, operation := range c.lacks {
				b.hv.Deny(operation)
				err := c.do(t, b)
				var missing *hypervisor.MissingPrivilegesError
				if !errors.As(err, &missing) || missing.Missing[0].Privilege != string(operation) {
					t.Errorf("without the privilege to %s: got %v", operation, err)
				}
			}
			if after := changes(b.hv); after != before {
				t.Errorf("something was done to the VMs: %d changes, before %d", after, before)
			}
			// It needs nothing else, and is done without.
			var others []hypervisor.Operation
			for _, operation := range []hypervisor.Operation{
				hypervisor.ToSnapshot, hypervisor.ToRemoveSnapshot, hypervisor.ToRenameSnapshot, hypervisor.ToRevert,
				hypervisor.ToConsolidate, hypervisor.ToPowerOn, hypervisor.ToPowerOff, hypervisor.ToBackUp, hypervisor.ToDestroy,
			} {
				if !slices.Contains(c.lacks, operation) {
					others = append(others, operation)
				}
			}
			b.hv.Deny(others...)
			if err := c.do(t, b); err != nil {
				t.Errorf("with what it needs: %v", err)
			}
		})
	}
}
