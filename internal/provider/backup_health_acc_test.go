package provider

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// read reads a data source. Attributes that are null are not in what it returns; lists are their lengths.
func (r *rpc) read(name string, config map[string]any) (map[string]any, []*tfprotov6.Diagnostic) {
	r.t.Helper()
	typ := r.schema.DataSourceSchemas[name].ValueType()
	value := r.dynamic(r.value(typ, config))
	checked, err := r.server.ValidateDataResourceConfig(r.t.Context(), &tfprotov6.ValidateDataResourceConfigRequest{TypeName: name, Config: value})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(checked.Diagnostics) > 0 {
		return nil, checked.Diagnostics
	}
	resp, err := r.server.ReadDataSource(r.t.Context(), &tfprotov6.ReadDataSourceRequest{TypeName: name, Config: value})
	if err != nil {
		r.t.Fatal(err)
	}
	if show(resp.Diagnostics, tfprotov6.DiagnosticSeverityError) != "" {
		return nil, resp.Diagnostics
	}
	var attributes map[string]tftypes.Value
	if err := r.undynamic(typ, resp.State).As(&attributes); err != nil {
		r.t.Fatal(err)
	}
	out := map[string]any{}
	for name, v := range attributes {
		if v.IsNull() {
			continue
		}
		var text string
		var flag bool
		var number big.Float
		var list []tftypes.Value
		switch {
		case v.As(&text) == nil:
			out[name] = text
		case v.As(&flag) == nil:
			out[name] = flag
		case v.As(&number) == nil:
			out[name], _ = number.Float64()
		case v.As(&list) == nil:
			out[name] = len(list)
		}
	}
	return out, resp.Diagnostics
}

// TestBackupHealth follows a virtual machine's backups, while there is the machine and when it is gone. The guide's
// test does so with Terraform.
func TestBackupHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	older := w.takeBackup("web01")
	repo, r := w.openRepository(), w.rpc()
	record := func(id repository.ID, level repository.VerifyLevel, ago time.Duration, problems ...string) {
		t.Helper()
		v := repository.Verification{Point: id, Level: level, At: time.Now().Add(-ago), OK: len(problems) == 0, Problems: problems}
		if err := repo.RecordVerification(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	health := func(step string, arguments, want map[string]any) {
		t.Helper()
		config := map[string]any{"vm": "web01", "max_age": "1h"}
		for name, value := range arguments {
			config[name] = value
		}
		got, diags := r.read("vm_backup_health", config)
		if len(diags) > 0 {
			t.Fatalf("%s: %s", step, show(diags, diags[0].Severity))
		}
		for name, value := range want {
			text, isText := value.(string)
			have, hasText := got[name].(string)
			switch {
			case name == "reason" && isText && hasText && text != "" && strings.Contains(have, text):
			case got[name] != value:
				t.Errorf("%s: %s is %v, want %v", step, name, got[name], value)
			}
		}
	}
	listed := func(step string, want int) {
		t.Helper()
		got, diags := r.read("vm_backups", map[string]any{"vm": "web01", "min_verification": "data"})
		noErrors(t, diags)
		if got["backups"] != want {
			t.Errorf("%s: %v verified backups are listed, want %d", step, got["backups"], want)
		}
	}
	none := map[string]any{"min_verification": "none"}
	restored := map[string]any{"min_verification": "restore", "max_verification_age": "1h"}

	health("not verified", nil, map[string]any{
		"ok": false, "reason": `level "data"; the newest is ` + string(older), "newest_id": string(older), "backup_id": nil, "failed_ids": 0,
	})
	health("not verified", none, map[string]any{"ok": true, "backup_id": string(older), "reason": "", "verification": nil})
	health("not as consistent", map[string]any{"min_consistency": "application"}, map[string]any{
		"ok": false, "reason": `no backup of "web01" that is application-consistent`, "newest_id": nil,
	})
	listed("not verified", 0)

	newest := w.takeBackup("web01")
	record(older, repository.VerifyRestore, 2*time.Hour)
	health("the older", nil, map[string]any{"ok": true, "backup_id": string(older), "verification": "restore", "newest_id": string(newest)})
	health("the older, long ago", restored, map[string]any{"ok": false, "reason": "was verified 2h0m0s ago; allowed are 1h0m0s"})
	health("too old", map[string]any{"max_age": "1ns"}, map[string]any{"ok": false, "reason": "allowed are 0s", "backup_id": string(older)})
	listed("the older", 1)

	record(newest, repository.VerifyData, time.Minute)
	health("both", nil, map[string]any{"ok": true, "backup_id": string(newest), "verification": "data"})
	listed("both", 2)

	record(newest, repository.VerifyIndex, 0, "pack p1 is missing")
	failed := map[string]any{"ok": true, "backup_id": string(older), "failed_ids": 1, "failed_description": "pack p1 is missing"}
	health("the newest is damaged", nil, failed)
	health("the newest is damaged", none, failed)
	listed("the newest is damaged", 1)

	w.destroyVM("web01")
	health("the VM is gone", nil, failed)
	health("of nobody", map[string]any{"vm": "nobody"}, map[string]any{"ok": false, "reason": `There is no backup of "nobody".`})

	// Another one comes in its place.
	if err := w.lab.AddVM(t.Context(), lab.VMSpec{Name: "web01", Disks: []string{labtest.RawDisk(t, 1<<20, 2)}}); err != nil {
		t.Fatal(err)
	}
	w.takeBackup("web01")
	for _, arguments := range []map[string]any{none, nil} {
		health("of two VMs", arguments, map[string]any{
			"ok": false, "reason": "several virtual machines", "backup_id": nil, "newest_id": nil, "failed_ids": 0,
		})
	}
	got, diags := r.read("vm_backup_health", map[string]any{"vm": "web01", "max_age": "1h"})
	if reason := fmt.Sprint(got["reason"]); len(diags) > 0 || strings.Count(reason, w.path("web01")+" (instance UUID ") != 2 {
		t.Errorf("of two VMs: %s, %s", reason, show(diags, tfprotov6.DiagnosticSeverityWarning))
	}
	test := map[string]any{"vm": "web01"}
	for _, diags := range [][]*tfprotov6.Diagnostic{
		r.checkAction("vm_restore_test", test), r.invoke(t.Context(), "vm_restore_test", test, nil).diagnostics,
	} {
		if text := show(diags, tfprotov6.DiagnosticSeverityError); strings.Count(text, w.path("web01")+" (instance UUID ") != 2 {
			t.Errorf("a restore test of two VMs: %s", text)
		}
	}
	for name, config := range map[string]map[string]any{
		"no age": {"vm": "web01"}, "no VM": {"max_age": "1h"}, "level": {"vm": "web01", "max_age": "1h", "min_verification": "some"},
		"age": {"vm": "web01", "max_age": "-1h"},
	} {
		if _, diags := r.read("vm_backup_health", config); show(diags, tfprotov6.DiagnosticSeverityError) == "" {
			t.Errorf("%s: it is accepted", name)
		}
	}
}

// An instance UUID is unique on one server only.
func TestNewestOfEach(t *testing.T) {
	t.Parallel()
	point := func(id, server, instance string) repository.RestorePoint {
		return repository.RestorePoint{ID: repository.ID(id), Server: server, InstanceUUID: instance, VMPath: "/DC0/vm/web01"}
	}
	points := []repository.RestorePoint{
		point("1", "a", "u1"), point("2", "b", "u1"), point("3", "a", "u1"), point("4", "a", "u2"), point("5", "b", "U1"),
	}
	var got []string
	for _, p := range newestOfEach(points) {
		got = append(got, string(p.ID))
	}
	if !slices.Equal(got, []string{"1", "2", "4"}) {
		t.Errorf("got %q", got)
	}
	if err := ofOne("web01", points[:2]); !errors.Is(err, errSeveralVMs) {
		t.Errorf("two servers: %v", err)
	}
	if err := ofOne("web01", []repository.RestorePoint{points[1], points[4]}); err != nil {
		t.Error(err)
	}
}
