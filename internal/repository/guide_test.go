package repository

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

const guideScripts = "../../examples/guides/kopia-tools"

// A guideReader is somebody who follows the guide on Kopia's tools.
type guideReader struct {
	t   *testing.T
	dir string // where the commands are run
	env []string
}

// run runs a script of the guide and returns what it printed.
func (g *guideReader) run(script string) string {
	g.t.Helper()
	file, err := filepath.Abs(filepath.Join(guideScripts, script))
	if err != nil {
		g.t.Fatal(err)
	}
	cmd := exec.CommandContext(g.t.Context(), "sh", "-eu", file)
	cmd.Dir, cmd.Env = g.dir, g.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		g.t.Fatalf("%s: %v\n%s%s", script, err, &stdout, &stderr)
	}
	return stdout.String()
}

// wants wants a file to have some content.
func (g *guideReader) wants(file string, want []byte) {
	g.t.Helper()
	if got, err := os.ReadFile(filepath.Join(g.dir, file)); err != nil || !bytes.Equal(got, want) {
		g.t.Errorf("%s has %d bytes that are not those of the disk: %v", file, len(got), err)
	}
}

// TestGuideKopiaTools does what the guide says with the stock command, with the scripts that it shows.
func TestGuideKopiaTools(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	m := testManifest()
	m.Tags = map[string]string{"release": "2.4.1"}
	system, data := testSource(1), &source{capacity: 3 * mib, extents: []extent{{mib, random(4, mib)}}}
	id := backUp(t, r, m, map[string]disk.Source{"disk-2000.raw": system, "disk-2001.raw": data})

	bin := t.TempDir()
	if err := os.Symlink(stockKopia(t), filepath.Join(bin, "kopia")); err != nil {
		t.Fatal(err)
	}
	g := &guideReader{t: t, dir: t.TempDir(), env: append(os.Environ(),
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+t.TempDir(), "KOPIA_CHECK_FOR_UPDATES=false",
		"KOPIA_PASSWORD="+testPassword, "VM_REPOSITORY_PASSWORD="+testPassword, "VM_REPOSITORY_PATH="+c.Path, "BACKUP_ID="+string(id))}
	g.run("connect.sh")
	if out := g.run("list.sh"); strings.Count(out, "terraform@vcenter-a:/DC0/vm/web01") != 3 || !strings.Contains(out, `"id":"`+string(id)+`"`) {
		t.Errorf("the lists are:\n%s", out)
	}
	if out := g.run("look.sh"); !strings.Contains(out, "disk-2001.raw") {
		t.Errorf("the backup is:\n%s", out)
	}
	if b, err := os.ReadFile(filepath.Join(g.dir, manifestFile)); err != nil || !bytes.Contains(b, []byte(`"file": "disk-2000.raw"`)) {
		t.Errorf("%s is %v:\n%s", manifestFile, err, b)
	}
	g.run("verify.sh")
	g.run("restore.sh")
	g.wants("web01/disk-2000.raw", system.bytes())
	g.wants("web01/disk-2001.raw", data.bytes())
	g.wants("web01/config.json", testFiles["config.json"])
	g.wants("web01-system.raw", system.bytes())

	qemu, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is missing: install qemu-utils")
	}
	g.run("convert.sh")
	back := exec.CommandContext(t.Context(), qemu, "convert", "-f", "vmdk", "-O", "raw", "web01-system.vmdk", "back.raw")
	back.Dir = g.dir
	if out, err := back.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	g.wants("back.raw", system.bytes())
}

// TestGuideKopiaVersion compares the version that the guide names with that of the command in the tests.
func TestGuideKopiaVersion(t *testing.T) {
	t.Parallel()
	module, err := os.ReadFile("../../tools/kopia/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`github.com/kopia/kopia v(\d+\.\d+)\.`).FindSubmatch(module)
	page, err := os.ReadFile("../../templates/guides/kopia-tools.md.tmpl")
	if err != nil || version == nil || !bytes.Contains(page, []byte("Kopia "+string(version[1]))) {
		t.Errorf("the guide doesn't name Kopia %s: %v", version, err)
	}
}

// TestGuideRepositoryFormat looks for every field and every tag in the description of the format.
func TestGuideRepositoryFormat(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../templates/guides/repository-format.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || !strings.Contains(typ.PkgPath(), "terraform-provider-vm") {
			return
		}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(page, "`"+name+"`") {
				t.Errorf("the page doesn't have the field %q of %s", name, typ)
			}
			look(typ.Field(i).Type)
		}
	}
	look(reflect.TypeFor[Manifest]())
	m := testManifest()
	m.Retention, m.Excluded = RetentionGoverned, []ExcludedDisk{{Key: "2002"}}
	for label := range labels(m) {
		if name := strings.TrimPrefix(label, tagPrefix); strings.HasPrefix(name, ownPrefix) && name != ownPrefix+"tag.terraform.x" && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the page doesn't have the tag %q", name)
		}
	}
	for _, name := range []string{manifestFile, hashesSuffix, pin, formatSplitter, useFile, holderFile} {
		if !strings.Contains(page, name) {
			t.Errorf("the page doesn't have %q", name)
		}
	}
}
