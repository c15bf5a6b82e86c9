package provider

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// A listed is one result of a query.
type listed struct {
	name        string
	identity    tftypes.Value
	resource    map[string]tftypes.Value
	diagnostics []*tfprotov6.Diagnostic
}

// list queries resources, as Terraform 1.14 does: with the resources themselves to generate configuration.
func (r *rpc) list(resource string, config map[string]any, limit int64, include bool) (results []listed) {
	r.t.Helper()
	server, ok := r.server.(tfprotov6.ListResourceServer)
	if !ok {
		r.t.Fatalf("%T lists no resources", r.server)
	}
	given := r.dynamic(r.value(r.schema.ListResourceSchemas[resource].ValueType(), config))
	valid, err := server.ValidateListResourceConfig(r.t.Context(), &tfprotov6.ValidateListResourceConfigRequest{
		TypeName: resource, Config: given,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(valid.Diagnostics) > 0 {
		return []listed{{diagnostics: valid.Diagnostics}}
	}
	stream, err := server.ListResource(r.t.Context(), &tfprotov6.ListResourceRequest{
		TypeName: resource, Config: given, Limit: limit, IncludeResource: include,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for result := range stream.Results {
		one := listed{name: result.DisplayName, diagnostics: result.Diagnostics}
		if result.Identity != nil {
			one.identity = r.undynamic(r.identityType(resource), result.Identity.IdentityData)
		}
		if result.Resource != nil {
			if err := r.undynamic(r.schema.ResourceSchemas[resource].ValueType(), result.Resource).As(&one.resource); err != nil {
				r.t.Fatal(err)
			}
		}
		results = append(results, one)
	}
	return results
}

func (r *rpc) identityType(resource string) tftypes.Type {
	r.t.Helper()
	ids, err := r.server.GetResourceIdentitySchemas(r.t.Context(), &tfprotov6.GetResourceIdentitySchemasRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	return ids.IdentitySchemas[resource].ValueType()
}

// arguments are the attributes of a listed resource that Terraform writes into a configuration.
func (r *rpc) arguments(resource string, attributes map[string]tftypes.Value) tftypes.Value {
	r.t.Helper()
	block := r.schema.ResourceSchemas[resource].Block
	config := make(map[string]tftypes.Value, len(attributes))
	for _, a := range block.Attributes {
		config[a.Name] = attributes[a.Name]
		if !a.Optional && !a.Required {
			config[a.Name] = tftypes.NewValue(a.ValueType(), nil)
		}
	}
	for _, b := range block.BlockTypes {
		config[b.TypeName] = attributes[b.TypeName]
	}
	return tftypes.NewValue(block.ValueType(), config)
}

// adopt imports what was listed by its identity, reads it, and plans the configuration that Terraform generates of it.
// The plan must be empty.
func (r *rpc) adopt(resource string, one listed) {
	r.t.Helper()
	state, private := r.imported(resource, &tfprotov6.ImportResourceStateRequest{
		Identity: &tfprotov6.ResourceIdentityData{IdentityData: r.dynamic(one.identity)},
	})
	r.plansEmpty(resource, state, r.arguments(resource, one.resource), private)
}

// imported is the state after an import, as Terraform has it after it has read it, and the private state.
func (r *rpc) imported(resource string, req *tfprotov6.ImportResourceStateRequest) (tftypes.Value, []byte) {
	r.t.Helper()
	req.TypeName = resource
	resp, err := r.server.ImportResourceState(r.t.Context(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	noErrors(r.t, resp.Diagnostics)
	if len(resp.ImportedResources) != 1 || resp.ImportedResources[0].Identity == nil {
		r.t.Fatalf("imported %+v", resp.ImportedResources)
	}
	one := resp.ImportedResources[0]
	read, err := r.server.ReadResource(r.t.Context(), &tfprotov6.ReadResourceRequest{
		TypeName: resource, CurrentState: one.State, Private: one.Private, CurrentIdentity: one.Identity,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	noErrors(r.t, read.Diagnostics)
	state := r.undynamic(r.schema.ResourceSchemas[resource].ValueType(), read.NewState)
	if state.IsNull() || read.NewIdentity == nil {
		r.t.Fatalf("after the import there is %v with the identity %v", state, read.NewIdentity)
	}
	return state, read.Private
}

// plansEmpty plans a configuration on a state, and wants nothing to change.
func (r *rpc) plansEmpty(resource string, state, config tftypes.Value, private []byte) {
	r.t.Helper()
	resp := r.planOn(resource, state, config, private)
	noErrors(r.t, resp.Diagnostics)
	diff, err := r.undynamic(state.Type(), resp.PlannedState).Diff(state)
	if err != nil || len(diff) > 0 || len(resp.RequiresReplace) > 0 {
		r.t.Errorf("%s is not as it is written: %v, %v; replaced because of %v", resource, diff, err, resp.RequiresReplace)
	}
}

// planOn plans a configuration on a state, with the attributes that Terraform takes over from the state.
func (r *rpc) planOn(resource string, state, config tftypes.Value, private []byte) *tfprotov6.PlanResourceChangeResponse {
	r.t.Helper()
	var was, written map[string]tftypes.Value
	if err := cmp.Or(state.As(&was), config.As(&written)); err != nil {
		r.t.Fatal(err)
	}
	proposed := make(map[string]tftypes.Value, len(written))
	for name, v := range written {
		proposed[name] = v
	}
	for _, a := range r.schema.ResourceSchemas[resource].Block.Attributes {
		if a.Computed && written[a.Name].IsNull() {
			proposed[a.Name] = was[a.Name]
		}
	}
	resp, err := r.server.PlanResourceChange(r.t.Context(), &tfprotov6.PlanResourceChangeRequest{
		TypeName: resource, PriorState: r.dynamic(state), Config: r.dynamic(config), PriorPrivate: private,
		ProposedNewState: r.dynamic(tftypes.NewValue(config.Type(), proposed)),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// names are the display names without the times.
func names(results []listed) []string {
	all := make([]string, len(results))
	for i, r := range results {
		all[i], _, _ = strings.Cut(r.name, " (")
		if r.name == "" {
			all[i] = fmt.Sprint(show(r.diagnostics, tfprotov6.DiagnosticSeverityError), show(r.diagnostics, tfprotov6.DiagnosticSeverityWarning))
		}
	}
	return all
}

// snapshot takes a snapshot as somebody else than Terraform.
func (w *world) snapshot(vm, name, description string) hypervisor.SnapshotID {
	w.t.Helper()
	id, err := w.client().CreateSnapshot(w.t.Context(), hypervisor.VMID(w.vm(vm).ID), hypervisor.SnapshotSpec{
		Name: name, Description: description,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func TestListSnapshots(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "app01"}, lab.VMSpec{Name: "idle"})
	w.snapshot("web01", "nightly-1", "")
	w.snapshot("web01", "before upgrade", "by ${hand}\nand \"quoted\"")
	w.snapshot("app01", "nightly-1", "")
	const folder = "/DC0/vm/lab"
	const nightly, upgrade, app = folder + "/web01: nightly-1", folder + "/web01: nightly-1/before upgrade", folder + "/app01: nightly-1"
	for name, c := range map[string]struct {
		config map[string]any
		limit  int64
		want   []string
	}{
		"all":                {want: []string{app, nightly, upgrade}},
		"one":                {limit: 1, want: []string{app}},
		"two":                {limit: 2, want: []string{app, nightly}},
		"of a VM":            {config: map[string]any{"vm": "web01"}, want: []string{nightly, upgrade}},
		"of a VM by UUID":    {config: map[string]any{"vm": w.vm("app01").BIOSUUID}, want: []string{app}},
		"of a VM, one":       {config: map[string]any{"vm": "web01"}, limit: 1, want: []string{nightly}},
		"of one without any": {config: map[string]any{"vm": "idle"}},
		"of a folder":        {config: map[string]any{"folder": folder}, want: []string{app, nightly, upgrade}},
		"of a datacenter":    {config: map[string]any{"folder": "/DC0"}, want: []string{app, nightly, upgrade}},
		"of a cluster":       {config: map[string]any{"folder": "/DC0/host/DC0_C0", "name": "before upgrade"}, want: []string{upgrade}},
		"of a resource pool": {config: map[string]any{"folder": "DC0/host/DC0_C0/Resources", "name": "before upgrade"}, want: []string{upgrade}},
		"of a datastore": {config: map[string]any{"folder": "/DC0/datastore/LocalDS_0"}, want: []string{
			`[AttributeName("folder")] Unable to List Snapshots: List snapshots: no folder "/DC0/datastore/LocalDS_0"; there is: `}},
		"by name":        {config: map[string]any{"name": "nightly-1"}, want: []string{app, nightly}},
		"by a part":      {config: map[string]any{"name_regex": "up"}, want: []string{upgrade}},
		"by a prefix":    {config: map[string]any{"name_regex": "^nightly-"}, want: []string{app, nightly}},
		"old ones":       {config: map[string]any{"older_than": "1h"}},
		"young ones":     {config: map[string]any{"older_than": "1ns", "vm": "app01"}, want: []string{app}},
		"large ones":     {config: map[string]any{"larger_than_bytes": 1 << 40}},
		"not tiny ones":  {config: map[string]any{"larger_than_bytes": 1, "vm": "app01"}, want: []string{app}},
		"temporary ones": {config: map[string]any{"temporary": true}},
		"no such VM":     {config: map[string]any{"vm": "nobody"}, want: []string{`[AttributeName("vm")] Unable to List Snapshots: `}},
		"no such folder": {config: map[string]any{"folder": "/DC0/vm/none"}, want: []string{
			`[AttributeName("folder")] Unable to List Snapshots: List snapshots: no folder "/DC0/vm/none"; there is: /DC0/vm, /DC0/vm/lab.`}},
		"a VM and a folder": {config: map[string]any{"vm": "web01", "folder": "/DC0"}, want: []string{
			`[AttributeName("vm")] Invalid Attribute Combination: `}},
		"a bad expression": {config: map[string]any{"name_regex": "("}, want: []string{
			`[AttributeName("name_regex")] Invalid Regular Expression: `}},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.rpc()
			got := names(r.list("vm_snapshot", c.config, c.limit, false))
			if !slices.EqualFunc(got, c.want, strings.HasPrefix) || len(got) == len(c.want) && slices.Contains(got, "") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	r := w.rpc()
	for _, one := range r.list("vm_snapshot", nil, 0, true) {
		r.adopt("vm_snapshot", one)
	}
}

// TestListBackups lists, and adopts, backups of two VMs of which one is gone.
func TestListBackups(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.VMSpec{Name: "app01"})
	r := w.rpc()
	take := func(config map[string]any) time.Time {
		t.Helper()
		m := r.apply(t.Context(), "vm_backup", config)
		noErrors(t, m.diagnostics)
		at, err := time.Parse(time.RFC3339, m.attributes(t).text(t, "created_at"))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	take(map[string]any{"vm": "app01", "tags": map[string]any{"tier": "app", "terraform.odd": "${x}"}})
	last := take(map[string]any{"vm": "web01", "description": "nightly", "quiesce": map[string]any{"mode": "required"}})
	biosUUID := w.vm("app01").BIOSUUID
	w.destroyVM("app01")
	const app, web = "/DC0/vm/lab/app01", "/DC0/vm/lab/web01"
	for name, c := range map[string]struct {
		config map[string]any
		limit  int64
		want   []string
	}{
		"all":              {want: []string{web, app}},
		"the newest":       {limit: 1, want: []string{web}},
		"of a VM":          {config: map[string]any{"vm": "web01"}, want: []string{web}},
		"of one by ID":     {config: map[string]any{"vm": w.vm("web01").ID}, want: []string{web}},
		"of one gone":      {config: map[string]any{"vm": biosUUID}, want: []string{app}},
		"tagged":           {config: map[string]any{"tags": map[string]any{"tier": "app"}}, want: []string{app}},
		"with another tag": {config: map[string]any{"tags": map[string]any{"tier": "db"}}},
		"consistent":       {config: map[string]any{"min_consistency": "filesystem"}, want: []string{web}},
		"later":            {config: map[string]any{"after": last.Add(time.Minute).Format(time.RFC3339)}},
		"earlier":          {config: map[string]any{"before": last.Add(time.Minute).Format(time.RFC3339)}, want: []string{web, app}},
		"at a bad time":    {config: map[string]any{"before": "noon"}, want: []string{`[AttributeName("before")] Invalid Timestamp: `}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := names(r.list("vm_backup", c.config, c.limit, false)); !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	all := r.list("vm_backup", nil, 0, true)
	if want := fmt.Sprintf("%s (%s, filesystem): nightly", web, stamp(last)); all[0].name != want {
		t.Errorf("got %q, want %q", all[0].name, want)
	}
	for _, one := range all {
		r.adopt("vm_backup", one)
	}
}

// TestListWithout has what a query needs not be there.
func TestListWithout(t *testing.T) {
	t.Parallel()
	r := newRPC(t, &fakeHypervisor{}, hypervisor.ErrLogin)
	noErrors(t, r.configure(vsphereBlock()))
	for resource, want := range map[string]string{
		"vm_snapshot": "Unable to List Snapshots: Login refused.", "vm_backup": "Unable to List Backups: Open repository /srv/backups: ",
	} {
		if got := names(r.list(resource, nil, 0, false)); len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestListHidden has a VM whose snapshots may not be read: the others are listed.
func TestListHidden(t *testing.T) {
	t.Parallel()
	one := hypervisor.Snapshot{ID: "snapshot-7", Name: "s", Path: "s"}
	r := newRPC(t, &fakeHypervisor{vms: fakeVMs(), all: []hypervisor.VMSnapshots{
		{VM: fakeVMs()[0], Err: &hypervisor.PermissionError{Privilege: "System.Read", Object: "/DC0/vm/web01"}},
		{VM: fakeVMs()[1], Snapshots: []hypervisor.Snapshot{one}},
	}}, nil)
	noErrors(t, r.configure(vsphereBlock()))
	got := names(r.list("vm_snapshot", nil, 1, true))
	want := []string{"Snapshots Not Listed: The snapshots of /DC0/vm/web01 (vm-1) can't be listed: privilege System.Read ", "/DC0/vm/db01: s"}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestListCalls counts what a query, and the import of all that it finds, ask of the server: that doesn't grow with the
// number of snapshots.
func TestListCalls(t *testing.T) {
	t.Parallel()
	const vms, each = 8, 3
	var more []lab.VMSpec
	for i := range vms {
		more = append(more, lab.VMSpec{Name: fmt.Sprint("vm", i)})
	}
	w := newWorld(t, more...)
	c := w.client()
	for i := range vms * each {
		_, err := c.CreateSnapshot(t.Context(), hypervisor.VMID(w.vm(fmt.Sprint("vm", i%vms)).ID), hypervisor.SnapshotSpec{Name: "s"})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(t.Context()); err != nil { // what it has to tidy up is not counted
		t.Fatal(err)
	}
	before := w.lab.Calls()
	calls := func(what string, most int) {
		t.Helper()
		sum := 0
		now := w.lab.Calls()
		for method, n := range now {
			sum += n - before[method]
		}
		before = now
		t.Logf("%d calls to %s", sum, what)
		if sum > most {
			t.Errorf("%d calls to %s, want %d at most", sum, what, most)
		}
	}
	r := w.rpc()
	all := r.list("vm_snapshot", nil, 0, true)
	if len(all) != vms*each {
		t.Fatalf("%d results: %q", len(all), names(all))
	}
	calls("log in, and list all snapshots", 2+4) // the view, the list, the end of the view, and all that have snapshots
	for _, one := range all {
		r.adopt("vm_snapshot", one)
	}
	// Before there are many, some are read one by one.
	calls("import them", 22)
}

// TestListTemporary lists what a killed backup left behind.
func TestListTemporary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	killed := run.Start(time.Now(), time.Time{})
	name, description, err := killed.LabelSnapshot(run.BackupSnapshot, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.snapshot("web01", name, description)
	r := w.rpc()
	temporary := map[string]any{"temporary": true}
	if got := names(r.list("vm_snapshot", temporary, 0, false)); len(got) > 0 {
		t.Errorf("a backup that is under way leaves %q behind", got)
	}
	killed.End()
	got := r.list("vm_snapshot", temporary, 0, true)
	if want := w.path("web01") + ": " + name; len(got) != 1 || names(got)[0] != want {
		t.Fatalf("got %q, want %q", names(got), want)
	}
	r.adopt("vm_snapshot", got[0])
	if got := names(r.list("vm_snapshot", nil, 0, false)); len(got) > 0 {
		t.Errorf("%q is nobody's temporary snapshot", got)
	}
}
