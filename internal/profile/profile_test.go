package profile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRun(t *testing.T) {
	failure := errors.New("what was done failed")
	do := func() error { return failure }
	t.Setenv(Directory, "")
	if err := Run(do); !errors.Is(err, failure) {
		t.Errorf("without a directory: %v", err)
	}
	dir := t.TempDir()
	t.Setenv(Directory, dir)
	t.Setenv(Name, "backup")
	if err := Run(do); !errors.Is(err, failure) {
		t.Errorf("with a directory: %v", err)
	}
	for _, kind := range []string{"cpu", "allocs"} {
		files, err := filepath.Glob(filepath.Join(dir, "backup-*."+kind))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %q, %v", kind, files, err)
		}
		if info, err := os.Stat(files[0]); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, or it is empty", files[0], err)
		}
	}
	t.Setenv(Directory, filepath.Join(dir, "missing"))
	if err := Run(do); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the directory: %v", err)
	}
}
