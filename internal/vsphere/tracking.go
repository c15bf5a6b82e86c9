package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// tracking is what a point in time knows about the change tracking of its VM.
type tracking struct {
	wanted  hypervisor.ChangeTracking
	enabled bool // it was switched on for this point in time

	// off says in a sentence why nothing can be told about changes of any disk. Empty: it can.
	off string

	server, vm string      // identities
	log        logPosition // from before the snapshot was taken; zero: unknown
	logEmpty   bool        // there was no event yet
}

// prepareTracking sees to the setting of a VM before the snapshot is taken, which makes a change of it
// effective. The setting is changed only where that is wanted, and only as long as the VM has no
// snapshots: with change tracking switched on above a snapshot, servers have answered wrongly and without
// an error (VMware KB 1020128, 1031873).
func (c *Client) prepareTracking(
	ctx context.Context, id hypervisor.VMID, wanted hypervisor.ChangeTracking,
) (tracking, error) {
	t := tracking{wanted: wanted}
	switch wanted {
	case "", hypervisor.TrackingUse, hypervisor.TrackingEnable:
	case hypervisor.TrackingIgnore:
		t.off = "Change tracking is to be ignored."
		return t, nil
	default:
		return t, fmt.Errorf("change tracking %q: there is no such way to treat it", wanted)
	}
	var m mo.VirtualMachine
	properties := []string{"config.changeTrackingEnabled", "capability.changeTrackingSupported", "snapshot"}
	if err := c.properties(ctx, vmRef(id), properties, &m); err != nil {
		return t, err
	}
	switch {
	case m.Config != nil && m.Config.ChangeTrackingEnabled != nil && *m.Config.ChangeTrackingEnabled:
	case !m.Capability.ChangeTrackingSupported:
		t.off = "The virtual machine's hardware version doesn't support change tracking."
	case wanted != hypervisor.TrackingEnable:
		t.off = "Change tracking is off."
	case m.Snapshot != nil && len(m.Snapshot.RootSnapshotList) > 0:
		t.off = "Change tracking is off, and can't be switched on while the virtual machine has snapshots."
	default:
		if err := c.enableTracking(ctx, id); err != nil {
			if ctx.Err() != nil {
				return t, fmt.Errorf("switch on change tracking: %w", err)
			}
			t.off = fmt.Sprintf("Change tracking is off, and could not be switched on: %v.", err)
			return t, nil
		}
		t.enabled = true
	}
	return t, nil
}

// enableTracking changes the setting, and nothing else.
func (c *Client) enableTracking(ctx context.Context, id hypervisor.VMID) error {
	unlock, err := c.lockVM(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = c.runTask(ctx, func(ctx context.Context) (*object.Task, error) {
		return c.vm(id).Reconfigure(ctx, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(true)})
	})
	if err != nil {
		return classify(err)
	}
	c.log.InfoContext(ctx, "change tracking was switched on", "vm", id)
	return nil
}

// judgeTracking finds out, once the snapshot exists, whether what the server will say about changes can be
// relied on. all are the VM's snapshots. What can't be found out speaks against it; the only error is that of
// ctx.
func (p *pointInTime) judgeTracking(ctx context.Context, all []hypervisor.Snapshot) error {
	t := &p.tracking
	if err := p.client.noteLog(ctx, p.vm, t, false); err != nil {
		return err
	}
	if t.off != "" {
		return nil
	}
	if t.enabled && len(all) != 1 {
		t.off = "Change tracking was switched on, and somebody else took a snapshot at the same time."
		return nil
	}
	var err error
	t.vm = p.config.Summary.InstanceUUID
	if t.server, err = p.client.Server(ctx); err == nil {
		t.off, err = p.client.oldHost(ctx, p.host)
	}
	if err == nil && t.off == "" {
		t.off, err = p.trackingBelow(ctx, all)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		t.off = fmt.Sprintf("Whether change tracking can be relied on could not be found out: %v.", err)
	}
	return nil
}

// noteLog notes where the server's log of events is, as long as somebody will ask what happened since: the
// next point in time, or this one when it has read from a datastore. That it can't be read hinders only them.
//
// That has to be before the snapshot is taken: what happens between the two, and what happens until the
// snapshot was looked at, must not go unnoticed. Only a virtual machine that has no events yet has its first
// one, that of the snapshot, noted afterwards, when first is false.
func (c *Client) noteLog(ctx context.Context, vm hypervisor.VMID, t *tracking, first bool) error {
	if t.off != "" && !slices.Contains(c.config.Transports, TransportDatastore) || !first && !t.logEmpty {
		return nil
	}
	var err error
	for attempt := 1; ; attempt++ {
		t.log, err = c.logPosition(ctx, vmRef(vm))
		t.logEmpty = errors.Is(err, errNoEvents)
		if err == nil || ctx.Err() != nil || first && t.logEmpty || attempt == logAttempts {
			break
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && (!first || !t.logEmpty) {
		c.log.WarnContext(ctx, "note the position in the server's log of events", "vm", vm, "error", err)
	}
	return nil
}

// logAttempts is how often the log of events is read, from its beginning each time.
const logAttempts = 3

// trackingBelow looks at the snapshots that the point in time stands on: one that was taken without
// change tracking, or with another one, is there since before it was switched on.
func (p *pointInTime) trackingBelow(ctx context.Context, all []hypervisor.Snapshot) (string, error) {
	ids := map[string]string{} // the tracking's identity by the disk's
	for _, d := range p.disks {
		if d.backing.changeID != "" {
			ids[d.backing.uuid], _, _ = splitChangeID(d.backing.changeID)
		}
	}
	for id := p.snapshot.Parent; id != ""; {
		i := slices.IndexFunc(all, func(s hypervisor.Snapshot) bool { return s.ID == id })
		if i < 0 {
			return "The point in time stands on a snapshot that the server doesn't list, so that nobody can tell whether " +
				"change tracking was on when it was taken.", nil
		}
		id = all[i].Parent
		var below mo.VirtualMachineSnapshot
		if err := p.client.properties(ctx, snapshotRef(all[i].ID), []string{"config.hardware.device"}, &below); err != nil {
			return "", err
		}
		for _, d := range orderedDisks(below.Config.Hardware.Device) {
			b := describeBacking(d.Backing)
			was, _, _ := splitChangeID(b.changeID)
			if is, ok := ids[b.uuid]; ok && !b.independent() && was != is {
				return fmt.Sprintf("Change tracking was switched on while the virtual machine had the snapshot %q, "+
					"above which it can't be relied on.", all[i].Name), nil
			}
		}
	}
	return "", nil
}

// oldHost says in a sentence why change tracking of an ESXi host can't be relied on: until build 3247720
// (ESXi600-201511001), version 6.0 lost the changes of a consolidation (VMware KB 2136854). A vCenter from 7.0
// on has no hosts older than 6.5.
func (c *Client) oldHost(ctx context.Context, host string) (string, error) {
	about := c.vim.ServiceContent.About
	if !c.vim.IsVC() {
		return oldVersion(about.Version, about.Build), nil
	}
	major, _, _ := strings.Cut(about.Version, ".")
	if n, err := strconv.Atoi(major); err == nil && n >= 7 || host == "" {
		return "", nil
	}
	var m mo.HostSystem
	ref := types.ManagedObjectReference{Type: "HostSystem", Value: host}
	if err := c.properties(ctx, ref, []string{"summary.config.product"}, &m); err != nil {
		return "", err
	}
	if m.Summary.Config.Product == nil {
		return "", errors.New("the host doesn't say its version")
	}
	return oldVersion(m.Summary.Config.Product.Version, m.Summary.Config.Product.Build), nil
}

func oldVersion(version, build string) string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	first, err := strconv.Atoi(major)
	second, minorErr := strconv.Atoi(minor)
	number, buildErr := strconv.Atoi(build)
	switch {
	case err != nil || minorErr != nil || first > 6 || first == 6 && second > 0:
		return ""
	case first == 6 && buildErr == nil && number >= 3247720:
		return ""
	}
	return fmt.Sprintf("Change tracking of ESXi %s (build %s) can't be relied on.", version, build)
}

// warnOfTracking says what became of the wish to have change tracking on.
func (p *pointInTime) warnOfTracking(ctx context.Context) {
	if p.tracking.wanted != hypervisor.TrackingEnable {
		return
	}
	if p.tracking.off != "" {
		p.warn(ctx, p.tracking.off)
		return
	}
	for _, d := range p.disks {
		if why := p.untracked(d); why != "" && !slices.Contains(p.exclude, d.key) {
			p.warn(ctx, fmt.Sprintf("%s: %s", d.label, why))
		}
	}
}

// untracked says in a sentence why nothing can be told about changes of a disk. Empty: it can.
func (p *pointInTime) untracked(d *pointDisk) string {
	switch {
	case p.tracking.off != "":
		return p.tracking.off
	case d.backing.changeID == "":
		return "Change tracking is on, but doesn't run for this disk."
	case d.backing.uuid == "" || d.backing.base == "":
		return "The disk has no identity by which it could be recognised."
	}
	return ""
}

// token is that of a disk at this point in time, nil if there is none.
func (p *pointInTime) token(d *pointDisk) *trackingToken {
	if p.untracked(d) != "" {
		return nil
	}
	return &trackingToken{
		ChangeID: d.backing.changeID, Server: p.tracking.server, VM: p.tracking.vm, Disk: d.backing.uuid,
		Capacity: d.capacity, Slot: d.slot, Path: d.backing.base, Taken: p.snapshot.CreatedAt, Log: p.tracking.log,
	}
}
