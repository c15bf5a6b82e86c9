package vsphere

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// operatorName is a user with a role of its own.
const operatorName = "operator@vsphere.local"

// A walk is an operation that is done by a user with exactly the privileges that the guide lists for it, and
// then again without each of them.
type walk struct {
	*bench
	operator   *Client
	operations []hypervisor.Operation
	holds      []condition
	places     map[target][]string // inventory paths
	do         func(c *Client) (warnings []string, err error)
	reset      func() // as it was before the operation, however that ended

	// unneeded are privileges that the operation can do without as it is done here. Without those in cleansUp
	// it can't clean up after a failure, or it fails after its end.
	unneeded, cleansUp []string
}

// newOperator logs the operator in.
func (b *bench) newOperator(transports ...string) *Client {
	b.Helper()
	must(b, b.lab.AddUser(lab.UserSpec{Name: operatorName, Password: "operator's"}))
	config := labConfig(b.lab)
	config.User, config.Password, config.Transports = operatorName, secret.New("operator's"), transports
	return dial(b.T, config)
}

// grants are those of the walk's operations that are needed.
func (w *walk) grants() (all []grant) {
	for _, operation := range w.operations {
		for _, g := range grants[operation] {
			if g.when == unconditional || slices.Contains(w.holds, g.when) {
				all = append(all, g)
			}
		}
	}
	return all
}

// allow gives the operator exactly the privileges of the walk, but for one on one target.
func (w *walk) allow(without string, on target) {
	w.Helper()
	ids := map[string]map[string]bool{} // by path
	for _, paths := range w.places {
		for _, path := range paths {
			ids[path] = map[string]bool{}
		}
	}
	for _, g := range w.grants() {
		for _, path := range w.places[g.on] {
			for _, id := range g.ids {
				ids[path][id] = true
			}
		}
	}
	for _, path := range w.places[on] {
		delete(ids[path], without)
	}
	for path, held := range ids {
		must(w, w.lab.Grant(operatorName, path, slices.Sorted(maps.Keys(held))...))
	}
}

// changes are the calls so far that may have changed something.
func (w *walk) changes() map[string]int {
	calls := w.lab.Calls()
	maps.DeleteFunc(calls, func(method string, _ int) bool {
		return !mayChange(method) || method == "SearchDatastore_Task" || strings.HasPrefix(method, "GET ")
	})
	return calls
}

// run walks.
func (w *walk) run(t *testing.T) {
	t.Helper()
	for _, g := range w.grants() {
		for _, id := range g.ids {
			w.allow(id, g.on)
			name := fmt.Sprintf("%s without %s on the %s", w.operations, id, g.on)
			before, status := w.changes(), w.inventory()
			texts, err := w.do(w.operator)
			if g.without == "" {
				w.refused(t, name, id, g.on, err)
				if after := w.changes(); !maps.Equal(before, after) || status != w.inventory() {
					t.Errorf("%s: something was started: %v, before %v", name, after, before)
				}
				w.unwarned(t, name, id)
				continue
			}
			if err != nil {
				t.Errorf("%s: got %v, although %s", name, err, g.without)
				continue
			}
			if !slices.Contains(w.unneeded, id) && !strings.Contains(strings.Join(texts, "\n"), id) {
				t.Errorf("%s: %q don't name the privilege", name, texts)
			}
			w.reset()
		}
	}
	w.allow("", "")
	if _, err := w.do(w.operator); err != nil {
		t.Errorf("%s with exactly the privileges of the guide: %v", w.operations, err)
		return
	}
	w.reset()
}

// unwarned does the operation without a privilege, with a server that doesn't tell beforehand that it is missing:
// the operation itself has to say so, and to clean up as far as it may.
func (w *walk) unwarned(t *testing.T, name, id string) {
	t.Helper()
	if slices.Contains(w.unneeded, id) {
		return
	}
	before := w.inventory()
	w.lab.Fault(lab.Fault{Method: "HasPrivilegeOnEntities", Fault: "NotSupported", Count: -1})
	_, err := w.do(w.operator)
	w.lab.Heal("HasPrivilegeOnEntities")
	var denied *hypervisor.PermissionError
	switch {
	case err == nil:
		t.Errorf("%s: it isn't needed", name)
	case !errors.As(err, &denied) || !strings.Contains(err.Error(), id):
		t.Errorf("%s, which nobody knew: %v doesn't name it", name, err)
	case !slices.Contains(w.cleansUp, id) && w.inventory() != before:
		t.Errorf("%s, which nobody knew: there is\n%s\nand was\n%s", name, w.inventory(), before)
	}
	w.reset()
}

// inventory is what there is in the lab: virtual machines with their snapshots, leases, and disks.
func (w *walk) inventory() string {
	status := w.lab.Status()
	var b strings.Builder
	for _, vm := range status.VMs {
		fmt.Fprintln(&b, vm.Name, vm.PowerState, len(vm.Snapshots))
	}
	fmt.Fprintln(&b, status.Leases)
	for _, f := range status.Files {
		fmt.Fprintln(&b, f.Name)
	}
	return b.String()
}

// refused checks that the error names the privilege and the object. A plan that can't even look for what it
// needs has to do without the pre-flight.
func (w *walk) refused(t *testing.T, name, id string, on target, err error) {
	t.Helper()
	var missing *hypervisor.MissingPrivilegesError
	var denied *hypervisor.PermissionError
	if !errors.As(err, &denied) {
		t.Errorf("%s: got %v, want a *PermissionError", name, err)
		return
	}
	if !errors.As(err, &missing) {
		if denied.Privilege != id || denied.Privilege != browse {
			t.Errorf("%s: got %v, want a *MissingPrivilegesError", name, err)
		}
		return
	}
	for _, m := range missing.Missing {
		if !slices.Contains(strings.Split(m.Privilege, ", "), id) {
			continue
		}
		for _, path := range w.places[on] {
			if m.Object == path || m.Object == "datastore "+path[strings.LastIndexByte(path, '/')+1:] {
				return
			}
		}
	}
	t.Errorf("%s: got %v, which names neither or another object", name, err)
}

// TestPrivileges_snapshots walks what is one call on a virtual machine.
func TestPrivileges_snapshots(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1<<20)
	operator := b.newOperator()
	var snapshot hypervisor.SnapshotID
	take := func(c *Client) (err error) {
		snapshot, err = c.CreateSnapshot(t.Context(), b.vm.ID, hypervisor.SnapshotSpec{Name: "s"})
		return err
	}
	remove := func(c *Client) error {
		return c.RemoveSnapshot(t.Context(), b.vm.ID, snapshot, hypervisor.RemoveOptions{})
	}
	ctx := t.Context()
	for operation, step := range map[hypervisor.Operation]struct {
		before, do, after func(c *Client) error
	}{
		hypervisor.ToSnapshot:       {do: take, after: remove},
		hypervisor.ToRemoveSnapshot: {before: take, do: remove},
		hypervisor.ToRenameSnapshot: {before: take, after: remove, do: func(c *Client) error {
			return c.RenameSnapshot(ctx, b.vm.ID, snapshot, "t", "other")
		}},
		hypervisor.ToRevert: {before: take, after: remove, do: func(c *Client) error {
			_, _, err := c.RevertToSnapshot(ctx, b.vm.ID, snapshot, hypervisor.RevertOptions{})
			return err
		}},
		hypervisor.ToConsolidate: {
			before: func(c *Client) error {
				return errors.Join(take(c), c.RemoveSnapshot(ctx, b.vm.ID, snapshot, hypervisor.RemoveOptions{NoConsolidate: true}))
			},
			do: func(c *Client) error {
				_, err := c.Consolidate(ctx, b.vm.ID)
				return err
			},
		},
		hypervisor.ToPowerOff: {before: func(c *Client) error { return c.PowerOn(ctx, b.vm.ID) }, do: func(c *Client) error {
			return c.PowerOff(ctx, b.vm.ID)
		}},
		hypervisor.ToPowerOn: {before: func(c *Client) error { return c.PowerOff(ctx, b.vm.ID) }, do: func(c *Client) error {
			return c.PowerOn(ctx, b.vm.ID)
		}},
	} {
		if step.before != nil {
			must(t, step.before(b.client))
		}
		// Without the privilege, the pre-flight says so, and the call itself.
		var ids []string
		for _, g := range grants[operation] {
			ids = append(ids, g.ids...)
		}
		w := &walk{bench: b, places: map[target][]string{onVM: {b.vm.Path}}}
		must(t, b.lab.Grant(operatorName, b.vm.Path))
		w.refused(t, string(operation), ids[0], onVM, operator.CheckPrivileges(ctx, []hypervisor.VMID{b.vm.ID}, operation))
		var denied *hypervisor.PermissionError
		if err := step.do(operator); !errors.As(err, &denied) || denied.Privilege != ids[0] || denied.Object != string(b.vm.ID) {
			t.Errorf("%s: got %v, want a *PermissionError for %s", operation, err, ids[0])
		}
		must(t, b.lab.Grant(operatorName, b.vm.Path, ids...))
		must(t, operator.CheckPrivileges(ctx, []hypervisor.VMID{b.vm.ID}, operation))
		if err := step.do(operator); err != nil {
			t.Errorf("%s with the privilege: %v", operation, err)
		}
		if step.after != nil {
			must(t, step.after(b.client))
		}
	}
	labtest.AssertClean(t, b.lab)
}

// TestPrivileges_backup walks a backup that reads what has changed from the datastore.
func TestPrivileges_backup(t *testing.T) {
	t.Parallel()
	b := newTrackedBench(t, nil, 4<<20, 2<<20)
	const store = "/DC0/datastore/LocalDS_0"
	w := &walk{
		bench: b, operator: b.newOperator(), operations: []hypervisor.Operation{hypervisor.ToBackUp},
		holds:  []condition{ifFallBack, ifChangedAreas},
		places: map[target][]string{onVM: {b.vm.Path}, onDatastore: {store}, onHome: {store}},
		reset:  b.removeSnapshots, unneeded: []string{exportVApp}, cleansUp: []string{removeSnapshot},
	}
	tokens := map[hypervisor.DiskKey]string{}
	w.do = func(c *Client) ([]string, error) { return b.readAsOperator(c, hypervisor.TrackingUse, tokens) }
	_, err := w.do(b.client) // for the tokens
	must(t, err)
	w.run(t)
	if len(tokens) != 2 {
		t.Errorf("got tokens of %d disks", len(tokens))
	}
}

// removeSnapshots removes all snapshots of the VM.
func (b *bench) removeSnapshots() {
	b.Helper()
	all, err := b.client.Snapshots(b.Context(), b.vm.ID)
	must(b, err)
	for _, s := range all {
		must(b, b.client.RemoveSnapshot(b.Context(), b.vm.ID, s.ID, hypervisor.RemoveOptions{}))
	}
	labtest.AssertClean(b, b.lab)
}

// TestPrivileges_export walks a backup that exports.
func TestPrivileges_export(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1<<20)
	w := &walk{
		bench: b, operator: b.newOperator(TransportExport), operations: []hypervisor.Operation{hypervisor.ToBackUp},
		holds:  []condition{ifExport},
		places: map[target][]string{onVM: {b.vm.Path}, onHome: {"/DC0/datastore/LocalDS_0"}},
		reset:  b.removeSnapshots, unneeded: []string{randomRead}, cleansUp: []string{removeSnapshot},
	}
	w.do = func(c *Client) ([]string, error) { return b.readAsOperator(c, hypervisor.TrackingUse, nil) }
	for _, g := range w.grants() {
		if g.on == onVM && g.without == "" {
			continue
		}
		w.unneeded = append(w.unneeded, g.ids...)
	}
	w.run(t)
}

// TestPrivileges_enableTracking walks a backup that switches change tracking on.
func TestPrivileges_enableTracking(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2<<20)
	w := &walk{
		bench: b, operator: b.newOperator(), operations: []hypervisor.Operation{hypervisor.ToBackUp},
		places: map[target][]string{onVM: {b.vm.Path}},
	}
	w.holds = []condition{ifFallBack, ifEnable}
	w.allow(changeTracking, onVM)
	texts, err := b.readAsOperator(w.operator, hypervisor.TrackingEnable, map[hypervisor.DiskKey]string{})
	must(t, err)
	if !strings.Contains(strings.Join(texts, "\n"), changeTracking) {
		t.Errorf("%q don't name the privilege", texts)
	}
	w.allow("", "")
	tokens := map[hypervisor.DiskKey]string{}
	_, err = b.readAsOperator(w.operator, hypervisor.TrackingEnable, tokens)
	must(t, err)
	if len(tokens) != 1 {
		t.Error("changes are not tracked")
	}
	labtest.AssertClean(t, b.lab)
}

// readAsOperator takes a point in time and reads its disks. It returns what that has to say, and notes tokens.
func (b *bench) readAsOperator(c *Client, tracking hypervisor.ChangeTracking, tokens map[hypervisor.DiskKey]string) (texts []string, err error) {
	ctx := b.Context()
	if err := c.CheckPrivileges(ctx, []hypervisor.VMID{b.vm.ID}, hypervisor.ToBackUp); err != nil {
		return nil, err
	}
	point, err := c.OpenPointInTime(ctx, b.vm.ID, hypervisor.PointInTimeSpec{Name: "tf-backup-1", ChangeTracking: tracking})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, point.Close(ctx)) }()
	for _, d := range point.Config().Summary.Disks {
		request := hypervisor.DiskRequest{Granularity: 1 << 20}
		if tokens[d.Key] != "" {
			request.Base = &hypervisor.Base{Tracking: tokens[d.Key]}
		}
		disk, err := point.OpenDisk(ctx, d.Key, request)
		if err != nil {
			return nil, err
		}
		if _, err := readSource(ctx, disk); err != nil {
			return nil, err
		}
		plan := disk.Plan()
		texts = append(texts, plan.TransportReason, plan.FullReason)
		if plan.Tracking != "" && tokens != nil {
			tokens[d.Key] = plan.Tracking
		}
	}
	return append(texts, point.Config().Warnings...), nil
}
