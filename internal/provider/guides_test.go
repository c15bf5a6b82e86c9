package provider

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

const guidesDir = "../../examples/guides"

// guideTests walk through the guides. Each applies every file of examples/guides/<name>.
var guideTests = map[string]func(*guide){
	"quick-start":          walkQuickStart,
	"snapshot-and-revert":  walkSnapshotAndRevert,
	"backup-in-a-pipeline": walkPipeline,
	"recreate-a-lab":       walkRecreate,
	"lost-vm":              walkLostVM,
	"compare-with-a-copy":  walkCompare,
	"restore-in-place":     walkInPlace,
	"disaster-recovery":    walkDisaster,
	"repositories":         walkRepositories,
	"adopt":                walkAdopt,
	"verified-backups":     walkVerified,
	"actions":              walkActions,
}

// TestGuides does what the guides tell to do, with the files that they show.
func TestGuides(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob(filepath.Join(guidesDir, "*", "*.tf"))
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range names {
		names[i] = filepath.Base(filepath.Dir(file))
	}
	names = slices.Compact(names)
	if len(names) != len(guideTests) {
		t.Errorf("there are examples of %q, and %d tests", names, len(guideTests))
	}
	for _, name := range names {
		walk, ok := guideTests[name]
		if !ok {
			t.Errorf("no test applies the examples of the guide %s", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := &guide{t: t, dir: filepath.Join(guidesDir, name), used: map[string]bool{}}
			walk(g)
			files, err := filepath.Glob(filepath.Join(g.dir, "*.tf"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if !g.used[filepath.Base(file)] && !t.Failed() {
					t.Errorf("nothing applies %s", file)
				}
			}
		})
	}
}

// TestGuidesShowExamples looks for the examples in the guides: what is shown is what is applied.
func TestGuidesShowExamples(t *testing.T) {
	t.Parallel()
	var shown []byte
	for _, pattern := range []string{"../../templates/guides/*.md.tmpl", "../../templates/index.md.tmpl"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			text := readFile(t, file)
			shown = append(shown, text...)
			if base := filepath.Base(file); base != "index.md.tmpl" && strings.Contains(text, "```terraform") {
				t.Errorf("%s shows a configuration that isn't an example", base)
			}
		}
	}
	examples, err := filepath.Glob(filepath.Join(guidesDir, "*", "*"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("examples: %v", err)
	}
	for _, file := range examples {
		name, err := filepath.Rel("../..", file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(shown, []byte(`"`+filepath.ToSlash(name)+`"`)) {
			t.Errorf("no guide shows %s", name)
		}
	}
}

// A guide is one that is being followed.
type guide struct {
	t    *testing.T
	dir  string
	used map[string]bool
	w    *world
	s    *workspace
}

// begin starts a lab with web01 and other VMs, and a workspace.
func (g *guide) begin(more ...lab.VMSpec) {
	g.t.Helper()
	g.w = newWorld(g.t, more...)
	g.w.setenv(envAllowUnverifiedSSL, "true")
	g.s = g.w.workspace()
}

// write replaces the configuration by files of the guide.
func (g *guide) write(files ...string) {
	g.t.Helper()
	var config strings.Builder
	for _, file := range files {
		g.used[file] = true
		config.WriteString(readFile(g.t, filepath.Join(g.dir, file)) + "\n")
	}
	g.s.write(config.String())
}

// apply writes files, applies them, and wants no changes afterwards.
func (g *guide) apply(files ...string) string {
	g.t.Helper()
	g.write(files...)
	out := g.s.must("apply", "-auto-approve")
	if again := g.s.must("plan"); !strings.Contains(again, "No changes") {
		g.t.Errorf("the plan after applying %q isn't empty:\n%s", files, again)
	}
	return out
}

// backUp takes a backup of each VM from a configuration of its own, as something else than the guide did.
func (g *guide) backUp(vms ...string) {
	g.t.Helper()
	s := g.w.workspace()
	var config strings.Builder
	for _, vm := range vms {
		fmt.Fprintf(&config, "resource \"vm_backup\" %q {\n  vm = %q\n}\n", vm, vm)
	}
	s.write(config.String())
	s.must("apply", "-auto-approve")
}

// holds wants disks of a VM to have some content.
func (g *guide) holds(vm string, disks ...[]byte) {
	g.t.Helper()
	if n := len(g.w.vm(vm).Disks); n != len(disks) {
		g.t.Errorf("%s has %d disks, want %d", vm, n, len(disks))
		return
	}
	for i, want := range disks {
		if err := g.w.holds(vm, i, want); err != nil {
			g.t.Error(err)
		}
	}
}

// running wants VMs to run.
func (g *guide) running(vms ...string) {
	g.t.Helper()
	for _, vm := range vms {
		if state := g.w.vm(vm).PowerState; state != "poweredOn" {
			g.t.Errorf("%s is %s", vm, state)
		}
	}
}
