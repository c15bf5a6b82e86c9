package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/snapshot"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

const (
	manyVMs    = 100
	manyPoints = 10_000
)

// manyManifest is that of the n-th of many restore points, of which each VM has as many as the others.
func manyManifest(n int) *Manifest {
	m := testManifest()
	vm := n % manyVMs
	m.CreatedAt = m.CreatedAt.Add(time.Duration(n) * time.Hour)
	m.Tags = map[string]string{"env": []string{"prod", "test"}[n%2], "nr": fmt.Sprint(n)}
	m.Consistency = []string{"crash", "filesystem", "application"}[n/manyVMs%3]
	m.VM.Name, m.VM.Path = fmt.Sprintf("vm%d", vm), fmt.Sprintf("/DC0/vm/vm%d", vm)
	m.VM.InstanceUUID = fmt.Sprintf("501c0b7a-0000-4000-8000-%012d", vm)
	m.VM.BIOSUUID = fmt.Sprintf("421c0b7a-0000-4000-8000-%012d", vm)
	return m
}

// commitMany makes many restore points at once. They all have the content of one.
func commitMany(tb testing.TB, r *Repository, points int) (ids []ID) {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	w, err := r.NewWriter(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	m := manyManifest(0)
	result, err := w.WriteDisk(ctx, "disk.raw", &source{capacity: mib, extents: []extent{{0, random(1, 512)}}})
	if err != nil {
		tb.Fatal(err)
	}
	m.Disks = []Disk{diskOf("disk.raw", mib, result)}
	first, err := w.Commit(ctx, m, testFiles)
	if err != nil {
		tb.Fatal(err)
	}
	ids = append(ids, first)
	s, err := r.snapshot(ctx, first)
	if err != nil {
		tb.Fatal(err)
	}
	err = repo.WriteSession(ctx, r.rep, writeOptions("test"), func(ctx context.Context, session repo.RepositoryWriter) error {
		for n := 1; n < points; n++ {
			id, err := snapshot.SaveSnapshot(ctx, session, newSnapshot(manyManifest(n), s.RootEntry, session.Time()))
			if err != nil {
				return err
			}
			ids = append(ids, ID(id))
			if n%(points/8) == 0 {
				if err := session.Flush(ctx); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return ids
}

// BenchmarkManyRestorePoints measures what people wait for in a repository with ten thousand restore points.
func BenchmarkManyRestorePoints(b *testing.B) {
	c := Config{Path: b.TempDir() + "/repository", Password: secret.New(testPassword), Create: true}
	r, err := Open(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	ids := commitMany(b, r, manyPoints)
	r.compact(b.Context())
	next := len(ids)
	fresh := func(b *testing.B, do func(r *Repository) error) {
		b.Helper()
		for b.Loop() {
			r, err := Open(b.Context(), c)
			if err == nil {
				err = errors.Join(do(r), r.Close(b.Context()))
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	list := func(f Filter, want int) func(r *Repository) error {
		return func(r *Repository) error {
			points, err := r.List(b.Context(), f)
			if err == nil && len(points) != want {
				err = fmt.Errorf("%d restore points, want %d", len(points), want)
			}
			return err
		}
	}
	b.Run("open", func(b *testing.B) { fresh(b, func(*Repository) error { return nil }) })
	b.Run("open and list all", func(b *testing.B) { fresh(b, list(Filter{}, manyPoints)) })
	b.Run("list all again", func(b *testing.B) {
		for b.Loop() {
			if err := list(Filter{}, manyPoints)(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	vm := Filter{VM: "vm7", MinConsistency: "filesystem", Tags: map[string]string{"env": "test"}}
	b.Run("open and list one VM", func(b *testing.B) { fresh(b, list(vm, manyPoints/manyVMs*2/3)) })
	b.Run("list one VM again", func(b *testing.B) {
		for b.Loop() {
			if err := list(vm, manyPoints/manyVMs*2/3)(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Get(b.Context(), ids[len(ids)/2]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open and delete", func(b *testing.B) {
		fresh(b, func(r *Repository) error {
			next--
			return r.Delete(b.Context(), ids[next])
		})
	})
	b.Run("commit", func(b *testing.B) {
		for b.Loop() {
			w, err := r.NewWriter(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if _, err := w.Commit(b.Context(), testManifest(), testFiles); err != nil {
				b.Fatal(err)
			}
		}
	})
	if err := r.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// Lists and filters look the same however many restore points there are.
func TestFindAmongMany(t *testing.T) {
	t.Parallel()
	const points = 1200
	c := testConfig(t)
	ids := commitMany(t, open(t, c), points)
	r := open(t, c)
	for name, test := range map[string]struct {
		filter Filter
		want   func(n int, m *Manifest) bool
	}{
		"all":          {Filter{}, func(int, *Manifest) bool { return true }},
		"VM":           {Filter{VM: "vm7"}, func(_ int, m *Manifest) bool { return m.VM.Name == "vm7" }},
		"tags":         {Filter{Tags: map[string]string{"env": "test"}}, func(n int, _ *Manifest) bool { return n%2 == 1 }},
		"consistency":  {Filter{MinConsistency: "filesystem"}, func(_ int, m *Manifest) bool { return m.Consistency != "crash" }},
		"before":       {Filter{Before: manyManifest(500).CreatedAt}, func(n int, _ *Manifest) bool { return n < 500 }},
		"all together": {Filter{VM: "vm7", Tags: map[string]string{"env": "test"}, MinConsistency: "application", After: manyManifest(300).CreatedAt}, func(n int, m *Manifest) bool { return n > 300 && m.VM.Name == "vm7" && m.Consistency == "application" }},
	} {
		var want, got []ID
		for n := range points {
			if test.want(n, manyManifest(n)) {
				want = append(want, ids[n])
			}
		}
		slices.Reverse(want)
		list, err := r.List(t.Context(), test.filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			got = append(got, p.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d restore points, want %d, or in another order", name, len(got), len(want))
		}
	}
	if err := r.Delete(t.Context(), ids[600]); err != nil {
		t.Fatal(err)
	}
	if list, err := r.List(t.Context(), Filter{}); err != nil || len(list) != points-1 {
		t.Errorf("%d restore points, %v", len(list), err)
	}
	if b := readDisk(t, r, ids[0], firstDisk(t, r, ids[0])); disk.IsZero(b) {
		t.Error("the disk is gone")
	}
}

// The index blobs that writing leaves are merged in time, and nothing gets lost.
func TestMergeIndex(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	names := func(prefix string) (paths []string) {
		err := filepath.WalkDir(c.Path, func(path string, d fs.DirEntry, err error) error {
			// Kopia shards blobs: xn0_… is x/n0_/…
			if rel, _ := filepath.Rel(c.Path, path); err == nil && !d.IsDir() && strings.HasPrefix(strings.ReplaceAll(rel, "/", ""), prefix) {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	ids := map[ID]uint64{}
	for epoch := range 3 {
		for n := range 6 {
			seed := uint64(epoch*100 + n)
			src := &source{capacity: mib, extents: []extent{{0, random(seed, 4096)}}}
			ids[backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": src})] = seed
		}
		written := names(fmt.Sprintf("xn%d_", epoch))
		if len(written) < 12 {
			t.Fatalf("%d index blobs of epoch %d", len(written), epoch)
		}
		// As if a day had gone by since the first.
		yesterday := time.Now().Add(-25 * time.Hour)
		if err := os.Chtimes(written[0], yesterday, yesterday); err != nil {
			t.Fatal(err)
		}
	}
	ids[backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": &source{capacity: mib, extents: []extent{{0, random(7, 4096)}}}})] = 7
	if merged := names("xs0_"); len(merged) != 1 {
		t.Errorf("%d blobs with the merged index of the first epoch", len(merged))
	}
	for _, r := range []*Repository{r, open(t, c)} {
		points, err := r.List(t.Context(), Filter{})
		if err != nil || len(points) != len(ids) {
			t.Errorf("%d restore points, %v, want %d", len(points), err, len(ids))
		}
		for id, seed := range ids {
			if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b[:4096], random(seed, 4096)) {
				t.Errorf("restore point %s differs", id)
			}
		}
	}
}
