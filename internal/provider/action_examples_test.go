package provider

import (
	"math/big"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// An exampleAction is an action block of an example.
type exampleAction struct {
	typ, name string
	config    map[string]any
}

// exampleActions reads the action blocks of a file, whose arguments are literals or local values: no Terraform that
// knows actions is needed to run them.
func exampleActions(t *testing.T, file string) (all []exampleAction) {
	t.Helper()
	parsed, diags := hclsyntax.ParseConfig([]byte(readFile(t, file)), file, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	body := parsed.Body.(*hclsyntax.Body)
	known := &hcl.EvalContext{Variables: map[string]cty.Value{}}
	for _, block := range body.Blocks {
		if block.Type == "locals" {
			locals := map[string]cty.Value{}
			for name, a := range block.Body.Attributes {
				locals[name] = evaluate(t, a.Expr, nil)
			}
			known.Variables["local"] = cty.ObjectVal(locals)
		}
	}
	for _, block := range body.Blocks {
		if block.Type != "action" {
			continue
		}
		a := exampleAction{typ: block.Labels[0], name: block.Labels[1]}
		for _, inner := range block.Body.Blocks {
			if inner.Type == "config" {
				a.config = exampleBody(t, inner.Body, known)
			}
		}
		all = append(all, a)
	}
	return all
}

func evaluate(t *testing.T, e hclsyntax.Expression, known *hcl.EvalContext) cty.Value {
	t.Helper()
	v, diags := e.Value(known)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return v
}

func exampleBody(t *testing.T, body *hclsyntax.Body, known *hcl.EvalContext) map[string]any {
	t.Helper()
	out := map[string]any{}
	for name, a := range body.Attributes {
		out[name] = plainValue(t, evaluate(t, a.Expr, known))
	}
	for _, block := range body.Blocks {
		out[block.Type] = exampleBody(t, block.Body, known)
	}
	return out
}

// plainValue is a value as rpc.value takes it.
func plainValue(t *testing.T, v cty.Value) any {
	t.Helper()
	switch typ := v.Type(); {
	case typ == cty.String:
		return v.AsString()
	case typ == cty.Bool:
		return v.True()
	case typ == cty.Number:
		n, _ := v.AsBigFloat().Int64()
		return new(big.Float).SetInt64(n)
	case typ.IsObjectType():
		out := map[string]any{}
		for name, one := range v.AsValueMap() {
			out[name] = plainValue(t, one)
		}
		return out
	case typ.IsTupleType():
		out := []any{}
		for _, one := range v.AsValueSlice() {
			out = append(out, plainValue(t, one))
		}
		return out
	default:
		t.Fatalf("a value of type %s", typ.FriendlyName())
		return nil
	}
}

// TestActionExamples invokes the actions of the documentation as they are written, without a CLI: CI has none that
// knows actions.
func TestActionExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../examples/actions/*/action.tf")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(allActions()) {
		t.Errorf("%d examples of %d actions", len(files), len(allActions()))
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.VMSpec{Name: "db01"})
			r := w.rpc()
			w.prepareAction(r, name)
			actions := exampleActions(t, file)
			if len(actions) == 0 {
				t.Errorf("%s has no action", file)
			}
			for _, a := range actions {
				if !strings.Contains(readFile(t, file), "-invoke=action."+a.typ+"."+a.name) {
					t.Errorf("%s doesn't say how %s is invoked", file, a.name)
				}
				noErrors(t, r.checkAction(a.typ, a.config))
				got := r.invoke(t.Context(), a.typ, a.config, nil)
				noErrors(t, got.diagnostics)
				if got.said() == "" {
					t.Errorf("%s says nothing", a.name)
				}
			}
		})
	}
}

// prepareAction makes what the example of an action needs.
func (w *world) prepareAction(r *rpc, name string) {
	w.t.Helper()
	switch name {
	case "vm_snapshot_revert":
		noErrors(w.t, r.invoke(w.t.Context(), "vm_snapshot_create", map[string]any{"vm": "web01", "name": "before-update"}, nil).diagnostics)
	case "vm_backup_prune":
		noErrors(w.t, r.invoke(w.t.Context(), "vm_backup_run", map[string]any{"vm": "web01"}, nil).diagnostics)
	case "vm_backup_verify", "vm_restore_test":
		w.takeBackup("web01")
		w.lab.SetGuestBoot(copies, lab.GuestComesUp)
	}
}
