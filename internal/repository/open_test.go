package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/kopia/kopia/repo/maintenance"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	made := testConfig(t)
	open(t, made)
	for name, test := range map[string]struct {
		change func(c *Config)
		want   error
		names  string // what the message must name
	}{
		"wrong password":       {func(c *Config) { c.Password = secret.New("wrong-secret") }, ErrPassword, made.Path},
		"no password":          {func(c *Config) { c.Password = secret.String{} }, ErrPassword, made.Path},
		"no path":              {func(c *Config) { c.Path = "" }, ErrNoRepository, "path"},
		"no directory":         {func(c *Config) { c.Path, c.Create = filepath.Join(t.TempDir(), "new"), false }, ErrNotMade, "new"},
		"no parent, not made":  {func(c *Config) { c.Path, c.Create = "/no/such/directory", false }, ErrNoRepository, "/no/such"},
		"no parent":            {func(c *Config) { c.Path = "/no/such/directory" }, ErrNoRepository, "/no/such"},
		"below a file":         {func(c *Config) { c.Path = filepath.Join(c.Path, formatFile, "x") }, ErrNoRepository, formatFile},
		"a file":               {func(c *Config) { c.Path = filepath.Join(c.Path, formatFile) }, ErrNoRepository, formatFile},
		"empty directory":      {func(c *Config) { c.Path, c.Create = t.TempDir(), false }, ErrNotMade, formatFile},
		"leftovers":            {func(c *Config) { c.Path, c.Create = directoryWith(t, configFile), false }, ErrNotMade, formatFile},
		"directory in use":     {func(c *Config) { c.Path = directoryWith(t, "thesis.tex") }, ErrNoRepository, "thesis.tex"},
		"below another":        {func(c *Config) { c.Path = filepath.Join(c.Path, "prod") }, ErrNoRepository, "within another repository, " + made.Path},
		"directory of another": {func(c *Config) { c.Path, c.Create = directoryWith(t, "x"), false }, ErrNoRepository, formatFile},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := made
			test.change(&c)
			before := listFiles(t, c.Path)
			_, err := Open(t.Context(), c)
			if err == nil || (test.want != nil && !errors.Is(err, test.want)) ||
				errors.Is(err, ErrNotMade) != (test.want == ErrNotMade) || //nolint:errorlint // which of the two is expected
				!strings.Contains(err.Error(), test.names) {
				t.Errorf("error %v, want %v naming %q", err, test.want, test.names)
			}
			if err != nil && (strings.Contains(err.Error(), testPassword) || strings.Contains(err.Error(), "wrong-secret")) {
				t.Errorf("the error gives the password away: %v", err)
			}
			if after := listFiles(t, c.Path); after != before {
				t.Errorf("files changed from %s to %s", before, after)
			}
		})
	}
}

func directoryWith(t *testing.T, file string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func listFiles(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(entries)
}

// A directory that is there already, such as a mount point, is taken if it is empty, and so is what
// an initialization left behind that was killed.
func TestOpenMakesRepository(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][]string{
		"empty":       nil,
		"mount point": {"lost+found"},
		"killed":      {lockFile, ".shards", configFile, configFile + ".tmp.12345678", formatFile + ".tmp.12345678"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			c.Path = t.TempDir()
			if name == "killed" { // with a .shards that Kopia can read
				shards, err := os.ReadFile(filepath.Join(open(t, testConfig(t)).path, ".shards"))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(c.Path, ".shards"), shards, 0o600); err != nil {
					t.Fatal(err)
				}
				files = append(files[:1:1], files[2:]...)
			}
			for _, f := range files {
				if err := os.WriteFile(filepath.Join(c.Path, f), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			backUp(t, open(t, c), testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
			if _, err := os.Stat(filepath.Join(c.Path, lockFile)); err == nil {
				t.Error("the lock file stays")
			}
		})
	}
}

func TestOpenRace(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	var wg sync.WaitGroup
	repositories := make([]*Repository, 6)
	for i := range repositories {
		wg.Go(func() {
			r, err := Open(t.Context(), c)
			if err != nil {
				t.Error(err)
			}
			repositories[i] = r
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, r := range repositories {
		if r.ID() != repositories[0].ID() {
			t.Errorf("repositories %s and %s at one path", r.ID(), repositories[0].ID())
		}
		// Each must be able to write what the others read.
		id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
		for _, other := range repositories {
			if _, err := other.Get(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	}
	for _, r := range repositories {
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedFormat(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		damage func(b []byte) []byte
		want   error
	}{
		"truncated": {func(b []byte) []byte { return b[:len(b)/2] }, ErrDamaged},
		"flipped": {func(b []byte) []byte {
			key := []byte(`"encryptedBlockFormat": "`)
			i := bytes.Index(b, key) + len(key) + 8
			if b[i] != 'A' {
				b[i] = 'A'
			} else {
				b[i] = 'B'
			}
			return b
		}, ErrPassword},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			open(t, c)
			file := filepath.Join(c.Path, formatFile)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, test.damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), c); !errors.Is(err, test.want) || !strings.Contains(err.Error(), c.Path) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

// The user may be one of Kopia, too. Its variables must not reach us: with a cache directory and no
// size for it, Kopia v0.23.1 panics when it reads.
func TestKopiaEnvironment(t *testing.T) {
	cache, temp := t.TempDir(), t.TempDir()
	t.Setenv("KOPIA_CACHE_DIRECTORY", cache)
	t.Setenv("KOPIA_PASSWORD", "other")
	t.Setenv("KOPIA_CONFIG_PATH", filepath.Join(cache, "config"))
	t.Setenv("TMPDIR", temp)
	c := testConfig(t)
	before := runtime.NumGoroutine()
	r, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("the disk differs")
	}
	if files := listFiles(t, cache); files != "[]" {
		t.Errorf("KOPIA_CACHE_DIRECTORY has %s", files)
	}
	var configs int
	err = filepath.WalkDir(temp, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		configs++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(testPassword)) || bytes.Contains(b, []byte(c.Path)) {
			t.Errorf("%s has the password or the path: %s", path, b)
		}
		return err
	})
	if err != nil || configs == 0 {
		t.Errorf("%d configuration files, %v", configs, err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if files := listFiles(t, temp); files != "[]" {
		t.Errorf("after Close there is %s", files)
	}
	settled(t, before)
}

func TestMaintenanceOwner(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	backUp(t, r, testManifest(), nil)
	if err := r.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if own, err := maintenance.IsOwnedByThisUser(t.Context(), r.rep); err != nil || !own {
		t.Errorf("owned %t, %v", own, err)
	}
	// Somebody who chose another owner keeps it.
	params := maintenance.DefaultParams()
	params.Owner = "somebody@else"
	ctx, w, err := r.rep.NewWriter(t.Context(), writeOptions("test"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(maintenance.SetParams(ctx, w, &params), w.Flush(ctx), w.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	backUp(t, r, testManifest(), nil)
	if got, err := maintenance.GetParams(t.Context(), r.rep); err != nil || got.Owner != params.Owner {
		t.Errorf("owner %+v, %v", got, err)
	}
}

func init() { children["quiet"] = backUpQuietly }

func backUpQuietly(ctx context.Context, path string) error {
	if _, err := Open(ctx, Config{Path: path}); err == nil {
		return errors.New("opened what isn't there")
	}
	r, err := openChild(ctx, path)
	if err != nil {
		return err
	}
	if _, err := Open(ctx, Config{Path: path, Password: secret.New("wrong")}); !errors.Is(err, ErrPassword) {
		return err
	}
	w, err := r.NewWriter(ctx)
	if err != nil {
		return err
	}
	if _, err := w.Commit(ctx, testManifest(), testFiles); err != nil {
		return err
	}
	return r.Close(ctx)
}

// Standard output belongs to the handshake between Terraform and a provider.
func TestNothingOnStandardOutput(t *testing.T) {
	t.Parallel()
	out, err := child(t, "quiet", testConfig(t).Path).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v, output %q", err, out)
	}
}
