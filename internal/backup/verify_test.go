package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// taken takes two backups of a VM, the second after its first disk has become another, and returns them, the newest
// first, with the file of the pack that has the disk of the newest and of none else.
func taken(t *testing.T) (*backup.Manager, *repository.Repository, []repository.RestorePoint, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "repository")
	repo, err := repository.Open(t.Context(), repository.Config{Path: path, Password: secret.New("correct horse"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := repo.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	hv, vm := newVM(t)
	m := newManager(hv, repo)
	var pack string
	var before map[string]int64
	for i := range 2 {
		before = dataPacks(t, path)
		if err := hv.WriteDisk(vm.ID, 0, content(uint64(10+i), capacity1), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Take(t.Context(), backup.Request{VM: "web"}); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	for file, n := range dataPacks(t, path) {
		if _, ok := before[file]; !ok && n > size {
			pack, size = file, n
		}
	}
	points, err := repo.List(t.Context(), repository.Filter{})
	if err != nil || len(points) != 2 {
		t.Fatal(points, err)
	}
	return m, repo, points, pack
}

// dataPacks are the files of a repository's packs of data, and their sizes in bytes.
func dataPacks(t *testing.T, path string) map[string]int64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(path, "p*", "*", "*.f"))
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		sizes[file] = info.Size()
	}
	return sizes
}

func TestVerify(t *testing.T) {
	t.Parallel()
	m, repo, points, _ := taken(t)
	for _, level := range []repository.VerifyLevel{repository.VerifyIndex, repository.VerifyData} {
		var said []progress.State
		ctx, stop := progress.Follow(t.Context(), func(s progress.State) { said = append(said, s) })
		results, err := m.Verify(ctx, backup.VerifyRequest{Points: points, Level: level})
		stop()
		if err != nil || len(results) != 2 {
			t.Fatalf("%s: %+v, %v", level, results, err)
		}
		ended := slices.DeleteFunc(said, func(s progress.State) bool { return !s.Ended })
		for i, s := range ended {
			if !strings.Contains(s.Phase, string(points[i].ID)) || !strings.Contains(s.Phase, fmt.Sprintf("(%d of 2)", i+1)) ||
				s.Done != s.Total || s.Total == 0 {
				t.Errorf("%s: %+v", level, s)
			}
		}
		if len(ended) != 2 && level == repository.VerifyData {
			t.Errorf("%s: it was told of %d", level, len(ended))
		}
		for i, r := range results {
			if r.Damage != nil || !r.Recorded || r.Point.ID != points[i].ID || len(r.Warnings) > 0 ||
				(r.ReadBytes > 0) != (level == repository.VerifyData) {
				t.Errorf("%s: %+v", level, r)
			}
		}
	}
	all, err := repo.Verifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if v, ok := repository.Verified(all[p.ID], repository.VerifyData); !ok || len(all[p.ID]) != 2 || v.Version != "1.2.3" {
			t.Errorf("%+v", all[p.ID])
		}
	}
	for _, level := range []repository.VerifyLevel{"", "other", repository.VerifyRestore} {
		if _, err := m.Verify(t.Context(), backup.VerifyRequest{Points: points, Level: level}); !errors.Is(err, backup.ErrRequest) {
			t.Errorf("level %q: %v", level, err)
		}
	}
}

// What is damaged is named, kept, and doesn't keep others from being verified.
func TestVerify_damaged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(file string, b []byte) error
		level  repository.VerifyLevel
		says   string
	}{
		"a byte is another": {func(file string, b []byte) error {
			b[len(b)/2] ^= 1
			return os.WriteFile(file, b, 0o600)
		}, repository.VerifyData, "bytes "},
		"a pack is missing": {func(file string, _ []byte) error { return os.Remove(file) }, repository.VerifyIndex, "missing"},
		"a pack is cut off": {func(file string, b []byte) error {
			return os.Truncate(file, int64(len(b)/2))
		}, repository.VerifyIndex, "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, repo, points, pack := taken(t)
			b, err := os.ReadFile(pack)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.damage(pack, b); err != nil {
				t.Fatal(err)
			}
			results, err := m.Verify(t.Context(), backup.VerifyRequest{Points: points, Level: c.level})
			var damage *backup.DamageError
			if !errors.As(err, &damage) || !errors.Is(err, repository.ErrDamaged) || len(results) != 2 {
				t.Fatalf("%+v, %v", results, err)
			}
			for _, want := range []string{string(points[0].ID), points[0].VMPath, "Hard disk 1", "bytes ", c.says} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoesn't say %q", err, want)
				}
			}
			if results[0].Damage == nil || results[1].Damage != nil || !results[0].Recorded || damage.Point.ID != points[0].ID {
				t.Errorf("%+v", results)
			}
			all, err := repo.Verifications(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if v := all[points[0].ID]; len(v) != 1 || v[0].OK || len(v[0].Problems) == 0 || !strings.Contains(v[0].Problems[0], "Hard disk 1") {
				t.Errorf("kept of the damaged one: %+v", v)
			}
			if v := all[points[1].ID]; len(v) != 1 || !v[0].OK {
				t.Errorf("kept of the other: %+v", v)
			}
		})
	}
}

// Who leaves in the middle verified nothing, and a restore point that went meanwhile is told.
func TestVerify_ends(t *testing.T) {
	t.Parallel()
	m, repo, points, _ := taken(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := newManager(nil, leaving{repo, cancel}).Verify(ctx, backup.VerifyRequest{Points: points, Level: repository.VerifyData})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if all, err := repo.Verifications(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := repo.Delete(t.Context(), points[1].ID); err != nil {
		t.Fatal(err)
	}
	results, err := m.Verify(t.Context(), backup.VerifyRequest{Points: points, Level: repository.VerifyIndex})
	if !errors.Is(err, repository.ErrNotFound) || len(results) != 1 {
		t.Errorf("%+v, %v", results, err)
	}
}

// A repository in which nothing can be kept is verified all the same.
func TestVerify_notRecorded(t *testing.T) {
	t.Parallel()
	_, repo, points, _ := taken(t)
	m := newManager(nil, forgetful{repo})
	results, err := m.Verify(t.Context(), backup.VerifyRequest{Points: points[:1], Level: repository.VerifyIndex})
	if err != nil || len(results) != 1 || results[0].Recorded || len(results[0].Warnings) != 1 ||
		!strings.Contains(results[0].Warnings[0], errBroken.Error()) {
		t.Errorf("%+v, %v", results, err)
	}
}

type forgetful struct{ *repository.Repository }

func (forgetful) RecordVerification(context.Context, repository.Verification) error { return errBroken }

// A leaving repository is one whose user leaves in the middle of a verification.
type leaving struct {
	*repository.Repository
	leave func()
}

func (l leaving) Verify(
	ctx context.Context, id repository.ID, level repository.VerifyLevel, report func(done, total int64),
) (*repository.VerifyResult, error) {
	return l.Repository.Verify(ctx, id, level, func(done, total int64) {
		l.leave()
		report(done, total)
	})
}
