package provider

import (
	"context"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// An invoked is what an action said and gave.
type invoked struct {
	progress    []string
	diagnostics []*tfprotov6.Diagnostic
}

func (i invoked) failed() bool { return show(i.diagnostics, tfprotov6.DiagnosticSeverityError) != "" }

// said is all progress in lines.
func (i invoked) said() string { return strings.Join(i.progress, "\n") }

// checkAction validates the configuration of an action and plans it, as Terraform does before it invokes it.
func (r *rpc) checkAction(name string, config map[string]any) []*tfprotov6.Diagnostic {
	r.t.Helper()
	value := r.dynamic(r.value(r.schema.ActionSchemas[name].Schema.ValueType(), config))
	checked, err := r.server.(tfprotov6.ActionServer).ValidateActionConfig(r.t.Context(), &tfprotov6.ValidateActionConfigRequest{ActionType: name, Config: value})
	if err != nil {
		r.t.Fatal(err)
	}
	if show(checked.Diagnostics, tfprotov6.DiagnosticSeverityError) != "" {
		return checked.Diagnostics
	}
	planned, err := r.server.(tfprotov6.ActionServer).PlanAction(r.t.Context(), &tfprotov6.PlanActionRequest{ActionType: name, Config: value})
	if err != nil {
		r.t.Fatal(err)
	}
	return append(checked.Diagnostics, planned.Diagnostics...)
}

// invoke invokes an action. heard is called with each line of progress; nil: nobody listens.
func (r *rpc) invoke(ctx context.Context, name string, config map[string]any, heard func(line string)) (i invoked) {
	r.t.Helper()
	value := r.dynamic(r.value(r.schema.ActionSchemas[name].Schema.ValueType(), config))
	stream, err := r.server.(tfprotov6.ActionServer).InvokeAction(ctx, &tfprotov6.InvokeActionRequest{ActionType: name, Config: value})
	if err != nil {
		r.t.Fatal(err)
	}
	for event := range stream.Events {
		switch e := event.Type.(type) {
		case tfprotov6.ProgressInvokeActionEventType:
			i.progress = append(i.progress, e.Message)
			if heard != nil {
				heard(e.Message)
			}
		case tfprotov6.CompletedInvokeActionEventType:
			i.diagnostics = e.Diagnostics
		}
	}
	return i
}

// TestActionDescriptions looks for what is said of resources alone: an action has no state, and nothing that is
// changed in place.
func TestActionDescriptions(t *testing.T) {
	t.Parallel()
	wrong := regexp.MustCompile(`(?i)a change|in place|this resource|another way to write|` + "`consistency`")
	var look func(at string, a schema.Attribute)
	look = func(at string, a schema.Attribute) {
		if text := a.GetMarkdownDescription(); text == "" || wrong.MatchString(text) {
			t.Errorf("%s is described as %q", at, text)
		}
		if nested, ok := a.(schema.SingleNestedAttribute); ok {
			for name, one := range nested.Attributes {
				look(at+"."+name, one)
			}
		}
	}
	for _, made := range allActions() {
		var meta action.MetadataResponse
		made().Metadata(t.Context(), action.MetadataRequest{ProviderTypeName: "vm"}, &meta)
		var resp action.SchemaResponse
		made().Schema(t.Context(), action.SchemaRequest{}, &resp)
		if resp.Schema.MarkdownDescription == "" || resp.Schema.Blocks["timeouts"] == nil {
			t.Errorf("%s has no description, or no timeouts", meta.TypeName)
		}
		for name, a := range resp.Schema.Attributes {
			look(meta.TypeName+"."+name, a)
		}
	}
}

// TestActionSilent interrupts an action. From then on it sends no progress: a Terraform that was told to stop would end
// the provider at it, in the middle of cleaning up.
func TestActionSilent(t *testing.T) {
	t.Parallel()
	heard := make(chan string, 9)
	resp := action.InvokeResponse{SendProgress: func(e action.InvokeProgressEvent) { heard <- e.Message }}
	a := configured{session: newSession(settings{}, backends{}, "")}
	none := timeouts.Value{Object: types.ObjectNull(map[string]attr.Type{"invoke": types.StringType})}
	parent, interrupt := context.WithCancel(t.Context())
	ctx, end := a.invoking(parent, none, time.Hour, &resp)
	progress.Say(ctx, "before")
	if line := <-heard; line != "before" {
		t.Errorf("it said %q", line)
	}
	interrupt()
	progress.Say(ctx, "after")
	end() // what must be told has been told then
	close(heard)
	for line := range heard {
		t.Errorf("after the interrupt it said %q", line)
	}
}

func TestActionSnapshotCreate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.rpc()
	config := map[string]any{
		"vm": "web01", "name": "before update", "description": "by hand", "quiesce": map[string]any{"mode": "required"},
	}
	names := map[string]bool{}
	for range 2 {
		noErrors(t, r.checkAction("vm_snapshot_create", config))
		got := r.invoke(t.Context(), "vm_snapshot_create", config, nil)
		noErrors(t, got.diagnostics)
		if !strings.Contains(got.said(), "took the snapshot \"before update-") || !strings.Contains(got.said(), "consistency filesystem") {
			t.Errorf("it said:\n%s", got.said())
		}
	}
	for _, s := range w.vm("web01").Snapshots {
		names[s.Name] = true
		if !regexp.MustCompile(`^before update-\d{8}T\d{6}Z-[0-9a-f]{8}$`).MatchString(s.Name) {
			t.Errorf("a snapshot is called %q", s.Name)
		}
	}
	if len(names) != 2 {
		t.Errorf("%d names of two snapshots: %v", len(names), names)
	}
}

// TestActionSnapshotCreateInterrupted ends the context at the moment at which the snapshot is made: no state will
// know it, so it must not stay.
func TestActionSnapshotCreateInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.rpc()
	ctx, cancel := context.WithCancel(t.Context())
	w.lab.OnCall("CreateSnapshotEx_Task", func(context.Context) { cancel() })
	got := r.invoke(ctx, "vm_snapshot_create", map[string]any{"vm": "web01", "name": "n"}, nil)
	if !strings.Contains(show(got.diagnostics, tfprotov6.DiagnosticSeverityError), "Unable to Take Snapshot") {
		t.Errorf("it gave: %v", show(got.diagnostics, tfprotov6.DiagnosticSeverityError))
	}
	labtest.AssertClean(t, w.lab)

	// The server is slow, and whoever reads the progress, and holds that up meanwhile, loses patience.
	asked := make(chan struct{})
	w.lab.OnCall("CreateSnapshotEx_Task", func(context.Context) { close(asked) })
	w.lab.Fault(lab.Fault{Method: "CreateSnapshot_Task", Delay: 10 * time.Minute})
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got = r.invoke(ctx, "vm_snapshot_create", map[string]any{"vm": "web01", "name": "n"}, func(line string) {
		if strings.HasPrefix(line, "taking the snapshot: 50 %") { // by the server's word
			<-asked
			cancel()
		}
	})
	w.lab.OnCall("CreateSnapshotEx_Task", nil)
	if !got.failed() || !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("it succeeded, or didn't say how far it was:\n%s", got.said())
	}
	labtest.AssertClean(t, w.lab)

	// The guest was shut down, the snapshot was taken, and the virtual machine doesn't start.
	w.lab.Fault(lab.Fault{Method: "PowerOnVM_Task", Fault: "InsufficientResourcesFault"})
	got = r.invoke(t.Context(), "vm_snapshot_create", map[string]any{"vm": "web01", "name": "n", "shutdown": true}, nil)
	if text := show(got.diagnostics, tfprotov6.DiagnosticSeverityError); !strings.Contains(text, "which was shut down for the snapshot") {
		t.Errorf("it gave:\n%s", text)
	}
	labtest.AssertClean(t, w.lab)
	if err := w.client().PowerOn(t.Context(), hypervisor.VMID(w.vm("web01").ID)); err != nil {
		t.Fatal(err)
	}
	noErrors(t, r.invoke(t.Context(), "vm_snapshot_create", map[string]any{"vm": "web01", "name": "n"}, nil).diagnostics)
}

// TestActionUnknown plans actions of which nothing is known yet, or nothing but that: no error, and nothing is asked of
// the server.
func TestActionUnknown(t *testing.T) {
	t.Parallel()
	for _, provider := range []map[string]any{
		vsphereBlock(), {"vsphere": unknown{}, "repository": unknown{}},
	} {
		r := newRPC(t, &fakeHypervisor{vms: fakeVMs()}, nil)
		noErrors(t, r.configure(provider))
		for name, a := range r.schema.ActionSchemas {
			object := a.Schema.ValueType().(tftypes.Object)
			all, vm := map[string]any{}, map[string]any{}
			for argument := range object.AttributeTypes {
				if argument != "timeouts" {
					all[argument], vm[argument] = unknown{}, unknown{}
				}
			}
			if _, ok := vm["vm"]; ok && provider["vsphere"] == any(unknown{}) {
				vm["vm"] = "web01"
			}
			noErrors(t, r.checkAction(name, all))
			noErrors(t, r.checkAction(name, vm))
		}
		if n := r.dials.Load(); n != 0 {
			t.Errorf("%d connections were made", n)
		}
	}
}

// TestActionValidate refuses what can be refused before anything is known of the server.
func TestActionValidate(t *testing.T) {
	t.Parallel()
	r := newRPC(t, nil, nil)
	keep := map[string]any{"keep_last": big.NewFloat(1)}
	for _, c := range []struct {
		action string
		config map[string]any
		want   string
	}{
		{"vm_snapshot_create", map[string]any{"vm": "web01", "name": ""}, `[AttributeName("name")] Invalid Attribute Value Length`},
		{"vm_snapshot_create", map[string]any{"vm": "web01", "name": strings.Repeat("n", 60)}, `[AttributeName("name")] Invalid Attribute Value Length`},
		{"vm_snapshot_create", map[string]any{"vm": "web01", "name": "n", "memory": true, "quiesce": map[string]any{"mode": "required"}}, `[AttributeName("quiesce")] Conflicting Arguments`},
		{"vm_snapshot_create", map[string]any{"vm": "web01", "name": "n", "timeouts": map[string]any{"invoke": "soon"}}, `[AttributeName("timeouts").AttributeName("invoke")] Invalid Attribute Value`},
		{"vm_backup_run", map[string]any{"vm": ""}, `[AttributeName("vm")] Invalid Attribute Value Length`},
		{"vm_backup_run", map[string]any{"vm": "web01", "mode": "some"}, `[AttributeName("mode")] Invalid Attribute Value Match`},
		{"vm_backup_run", map[string]any{"vm": "web01", "retention": map[string]any{}}, `[AttributeName("retention")] Retention Without a Rule`},
		{"vm_backup_run", map[string]any{"vm": "web01", "exclude_disks": []any{}}, `[AttributeName("exclude_disks")] Invalid Attribute Value`},
		{"vm_backup_prune", map[string]any{"vm": "web01", "retention": map[string]any{}}, `[AttributeName("retention")] Retention Without a Rule`},
		{"vm_backup_prune", map[string]any{"vm": "", "retention": keep}, `[AttributeName("vm")] Invalid Attribute Value Length`},
		{"vm_backup_prune", map[string]any{"vm": "web01", "retention": map[string]any{"keep_daily": big.NewFloat(0)}}, `[AttributeName("retention").AttributeName("keep_daily")] Invalid Attribute Value`},
		{"vm_consolidate", map[string]any{"vm": ""}, `[AttributeName("vm")] Invalid Attribute Value Length`},
	} {
		if text := show(r.checkAction(c.action, c.config), tfprotov6.DiagnosticSeverityError); !strings.Contains(text, c.want) {
			t.Errorf("%s %v: got %q, want %q", c.action, c.config, text, c.want)
		}
	}
}

// TestActionUnconfigured invokes every action of a provider that has neither a hypervisor nor a repository: each says
// what is missing, and nothing panics.
func TestActionUnconfigured(t *testing.T) {
	t.Parallel()
	r := newRPC(t, nil, nil)
	noErrors(t, r.configure(map[string]any{}))
	for name, config := range map[string]map[string]any{
		"vm_snapshot_create": {"vm": "web01", "name": "n"},
		"vm_snapshot_revert": {"vm": "web01", "name": "n"},
		"vm_backup_run":      {"vm": "web01"},
		"vm_backup_prune":    {"vm": "web01", "retention": map[string]any{"keep_last": big.NewFloat(1)}},
		"vm_consolidate":     {"vm": "web01"},
	} {
		got := r.invoke(t.Context(), name, config, nil)
		if text := show(got.diagnostics, tfprotov6.DiagnosticSeverityError); !strings.Contains(text, "is configured.") {
			t.Errorf("%s: got %q", name, text)
		}
	}
}
