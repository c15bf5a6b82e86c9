package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// stockKopia builds the kopia command from the module that this package uses and returns its path.
func stockKopia(t *testing.T) string {
	t.Helper()
	kopia.once.Do(func() {
		if kopia.dir, kopia.err = os.MkdirTemp("", "kopia-"); kopia.err != nil { //nolint:usetesting // outlives this test
			return
		}
		kopia.path = filepath.Join(kopia.dir, "kopia.exe") // a name that every system runs
		// Not the test's context: another test may need the command after this one.
		build := exec.CommandContext(context.Background(), "go", "build", "-o", kopia.path, "github.com/kopia/kopia")
		build.Dir = filepath.Join("..", "..", "tools", "kopia")
		if out, err := build.CombinedOutput(); err != nil {
			kopia.err = errors.Join(err, errors.New(string(out)))
		}
	})
	if errors.Is(kopia.err, exec.ErrNotFound) {
		t.Skip("building the kopia command needs the go command: install Go")
	}
	if kopia.err != nil {
		t.Fatal(kopia.err)
	}
	return kopia.path
}

// kopiaClient runs the command as a user who has connected it to the repository.
type kopiaClient struct {
	program string
	dir     string
}

func connectKopia(t *testing.T, path string) *kopiaClient {
	t.Helper()
	k := &kopiaClient{program: stockKopia(t), dir: t.TempDir()}
	k.run(t, "repository", "connect", "filesystem", "--path", path, "--no-check-for-updates")
	return k
}

// run returns the standard output of a command that must succeed.
func (k *kopiaClient) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), k.program, args...)
	cmd.Env = append(os.Environ(), "KOPIA_PASSWORD="+testPassword, "KOPIA_CHECK_FOR_UPDATES=false",
		"HOME="+k.dir, "KOPIA_CONFIG_PATH="+filepath.Join(k.dir, "config"), "KOPIA_LOG_DIR="+filepath.Join(k.dir, "log"),
		"KOPIA_CACHE_DIRECTORY="+filepath.Join(k.dir, "cache"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kopia %s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

func TestStockKopia(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	sources := map[string]disk.Source{
		"disk-0.raw": testSource(1),
		"disk-1.raw": &source{capacity: 40 * mib, extents: []extent{{33 * mib, random(4, mib)}}},
		"disk-2.raw": &source{capacity: 1024, extents: []extent{{0, random(5, 512)}}},
	}
	var ids []ID
	for range 15 { // more than Kopia's default policy keeps
		ids = append(ids, backUp(t, r, testManifest(), sources))
	}
	k := connectKopia(t, c.Path)

	var listed []struct {
		ID     ID
		Source struct{ Host, UserName, Path string }
		Tags   map[string]string
		Pins   []string
	}
	list := func(args ...string) {
		t.Helper()
		listed = nil
		out := k.run(t, append([]string{"snapshot", "list", "--all", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &listed); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	list("--tags", "terraform.vm-name:web01", "--tags", "env:prod")
	if len(listed) != len(ids) {
		t.Fatalf("kopia lists %d restore points of %d", len(listed), len(ids))
	}
	if s := listed[0].Source; s.Host != "vcenter-a" || s.UserName != "terraform" || s.Path != "/DC0/vm/web01" {
		t.Errorf("kopia lists %+v", listed[0])
	}
	k.run(t, "snapshot", "verify", "--verify-files-percent=100")

	k.run(t, "snapshot", "expire", "--all", "--delete")
	list()
	if len(listed) != len(ids) {
		t.Errorf("kopia keeps %d restore points of %d", len(listed), len(ids))
	}

	target := filepath.Join(t.TempDir(), "restored")
	k.run(t, "snapshot", "restore", "--write-sparse-files", string(ids[3]), target)
	want := map[string][]byte{}
	for file, src := range sources {
		want[file] = src.(*source).bytes() //nolint:forcetypeassert // see above
	}
	for file, b := range testFiles {
		want[file] = b
	}
	for file, b := range want {
		got, err := os.ReadFile(filepath.Join(target, file))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s differs after kopia restored it: %d bytes, %v", file, len(got), err)
		}
	}
	b, err := os.ReadFile(filepath.Join(target, manifestFile))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := parseManifest(b); err != nil || len(m.Disks) != len(sources) {
		t.Errorf("restored manifest %+v, %v", m, err)
	}
}

// A snapshot that a user of Kopia made in our repository is none of our business, and neither list
// nor deletion touches it.
func TestForeignSnapshot(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	own := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	k := connectKopia(t, c.Path)
	var made struct{ ID ID }
	if err := json.Unmarshal([]byte(k.run(t, "snapshot", "create", "--json", directoryWith(t, "thesis.tex"))), &made); err != nil {
		t.Fatal(err)
	}
	if points, err := r.List(t.Context(), Filter{}); err != nil || len(points) != 1 || points[0].ID != own {
		t.Errorf("listed %v, %v", points, err)
	}
	if _, err := r.Get(t.Context(), made.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if err := r.Delete(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	if out := k.run(t, "snapshot", "list", "--all", "--json"); !strings.Contains(out, string(made.ID)) {
		t.Errorf("kopia lists %s", out)
	}
}

// A repository that a user of Kopia made, with whatever settings, is as good as one of ours.
func TestForeignRepository(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.Create = false
	k := &kopiaClient{program: stockKopia(t), dir: t.TempDir()}
	k.run(t, "repository", "create", "filesystem", "--path", c.Path)
	r := open(t, c)
	src := testSource(1)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})
	if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, src.bytes()) {
		t.Error("the disk differs")
	}
	k.run(t, "snapshot", "verify", "--verify-files-percent=100")
}

// The command must be of the version that the provider uses.
func TestStockKopiaVersion(t *testing.T) {
	t.Parallel()
	requirement := regexp.MustCompile(`github.com/kopia/kopia v\S+`)
	var found []string
	for _, dir := range []string{"", filepath.Join("tools", "kopia")} {
		b, err := os.ReadFile(filepath.Join("..", "..", dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, requirement.FindString(string(b)))
	}
	if found[0] == "" || found[0] != found[1] {
		t.Errorf("the provider requires %q, tools/kopia %q", found[0], found[1])
	}
}
