package backup

import (
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor/hypervisortest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// damageLargest changes the largest pack of data in a repository, all over.
func damageLargest(t *testing.T, path string) {
	t.Helper()
	changeLargest(t, path, func(b []byte) {
		for i := 0; i < len(b); i += 16 {
			b[i] ^= 0x55
		}
	})
}

// changeLargest changes the largest pack of data in a repository.
func changeLargest(t *testing.T, path string, change func(b []byte)) {
	t.Helper()
	largest, size := "", int64(0)
	err := filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasPrefix(strings.TrimPrefix(file, path+"/"), "p") {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > size {
			largest, size = file, info.Size()
		}
		return err
	})
	if err != nil || largest == "" {
		t.Fatal("no pack", err)
	}
	b, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	if err := os.WriteFile(largest, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A backup that is taken again because the repository is damaged stands only if it can be read.
func TestTake_damaged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		overwrite int // bytes of the disk, before the second backup
		fails     bool
	}{
		"some of the disk is stored already": {overwrite: 1 << 20, fails: true},
		"none of the disk is stored already": {overwrite: 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := func(seed byte, n int) []byte {
				b := make([]byte, n)
				_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
				return b
			}
			hv := hypervisortest.NewFake(t)
			vm := hv.AddVM(hypervisortest.VMSpec{Name: "web", Tracking: true, Disks: [][]byte{random(1, 8<<20)}})
			path := filepath.Join(t.TempDir(), "repository")
			repo, err := repository.Open(t.Context(), repository.Config{Path: path, Password: secret.New("correct horse"), Create: true})
			if err != nil {
				t.Fatal(err)
			}
			defer repo.Close(t.Context()) //nolint:errcheck // the test is over
			m := New(hv, repo, slog.New(slog.DiscardHandler), time.Now, "1")
			if _, err := m.Take(t.Context(), Request{VM: "web"}); err != nil {
				t.Fatal(err)
			}
			damageLargest(t, path)
			if err := hv.WriteDisk(vm.ID, 0, random(2, c.overwrite), 0); err != nil {
				t.Fatal(err)
			}
			result, err := m.Take(t.Context(), Request{VM: "web"})
			points, listErr := repo.List(t.Context(), repository.Filter{})
			if listErr != nil {
				t.Fatal(listErr)
			}
			switch {
			case c.fails && (!errors.Is(err, repository.ErrSharedDamage) || len(points) != 1):
				t.Errorf("error %v, want %v; there are %d restore points", err, repository.ErrSharedDamage, len(points))
			case !c.fails && (err != nil || len(points) != 2 || len(result.Warnings) == 0):
				t.Errorf("error %v, %d restore points", err, len(points))
			}
			if left := hv.Leftovers(SnapshotPrefix); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestTake_knownDamage takes backups onto what a verification found damaged, in a way that nothing but reading finds.
// None stands that shares it, and none that is damaged takes the place of one that isn't.
func TestTake_knownDamage(t *testing.T) {
	t.Parallel()
	hv := hypervisortest.NewFake(t)
	content := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // never fails
	hv.AddVM(hypervisortest.VMSpec{Name: "web", Tracking: true, Disks: [][]byte{content}})
	path := filepath.Join(t.TempDir(), "repository")
	repo, err := repository.Open(t.Context(), repository.Config{Path: path, Password: secret.New("correct horse"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close(t.Context()) //nolint:errcheck // the test is over
	clock := time.Now()
	m := New(hv, repo, slog.New(slog.DiscardHandler), func() time.Time { return clock }, "1")
	retention := &Retention{Last: 1}
	first, err := m.Take(t.Context(), Request{VM: "web", Retention: retention})
	if err != nil {
		t.Fatal(err)
	}
	changeLargest(t, path, func(b []byte) { b[len(b)/2] ^= 1 })
	points, err := repo.List(t.Context(), repository.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var damage *DamageError
	if _, err := m.Verify(t.Context(), VerifyRequest{Points: points, Level: repository.VerifyData}); !errors.As(err, &damage) {
		t.Fatalf("error %v, want a *DamageError", err)
	}
	take := func(mode Mode) {
		t.Helper()
		clock = clock.Add(time.Hour)
		if _, err := m.Take(t.Context(), Request{VM: "web", Mode: mode, Retention: retention}); !errors.Is(err, repository.ErrSharedDamage) {
			t.Errorf("error %v, want %v", err, repository.ErrSharedDamage)
		}
	}
	take("")
	take(ModeFull)
	pruned, err := m.Prune(t.Context(), PruneRequest{Retention: *retention})
	if err != nil || len(pruned.Removed) > 0 || len(pruned.Verdicts) != 1 || !slices.Equal(pruned.Verdicts[0].Reasons, []string{reasonDamaged}) {
		t.Errorf("pruned: %+v, %v", pruned, err)
	}

	// That it is deleted doesn't mend what is stored.
	if err := repo.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	take("")
	if points, err := repo.List(t.Context(), repository.Filter{}); err != nil || len(points) > 0 {
		t.Errorf("%d restore points stand: %v", len(points), err)
	}
}
