package provider

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
)

// walkVerified is warned until the backups are verified as the guide wants. No released Terraform that tests can count
// on knows actions, so that they are invoked without one.
func walkVerified(g *guide) {
	g.begin(lab.VMSpec{Name: "db01"})
	g.w.setenv("TF_VAR_day", "2026-03-01")
	g.w.lab.SetGuestBoot(copies, lab.GuestComesUp)
	g.apply("main.tf")
	db01 := g.w.takeBackup("db01")
	warned := func(want ...string) {
		g.t.Helper()
		g.write("main.tf", "check.tf")
		out := strings.Join(strings.Fields(strings.ReplaceAll(g.s.must("plan"), "│", "")), " ")
		if n := strings.Count(out, "Check block assertion failed"); n != min(len(want), 2) {
			g.t.Errorf("%d warnings:\n%s", n, out)
		}
		for _, text := range want {
			if !strings.Contains(out, text) {
				g.t.Errorf("no warning says %q:\n%s", text, out)
			}
		}
	}
	const unverified = `There is no backup of web01 that is verified at level`
	warned(unverified+` "data"`, unverified+` "restore"`, "There is no backup of db01 that is verified")

	g.used["actions.tf"] = true
	r := g.w.rpc()
	picture := filepath.Join(g.t.TempDir(), "web01.png")
	for _, a := range exampleActions(g.t, filepath.Join(g.dir, "actions.tf")) {
		if a.config["screenshot_file"] != nil {
			a.config["screenshot_file"] = picture
		}
		noErrors(g.t, r.checkAction(a.typ, a.config))
		noErrors(g.t, r.invoke(g.t.Context(), a.typ, a.config, nil).diagnostics)
	}
	if _, err := os.Stat(picture); err != nil {
		g.t.Error(err)
	}
	warned("There is no backup of db01 that is verified")
	noErrors(g.t, r.invoke(g.t.Context(), "vm_backup_verify", map[string]any{"backup_id": string(db01)}, nil).diagnostics)
	warned()
	labtest.AssertClean(g.t, g.w.lab)
}
