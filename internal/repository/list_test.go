package repository

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

func TestListAndDelete(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	base := testManifest()
	var ids []ID
	for i, consistency := range []string{"crash", "application", "filesystem"} {
		m := testManifest()
		m.CreatedAt = base.CreatedAt.Add(time.Duration(i) * time.Hour)
		m.Consistency = consistency
		if i == 2 {
			m.VM.Name, m.VM.Path, m.VM.BIOSUUID, m.VM.InstanceUUID = "db01", "/DC0/vm/db01", "b", "i"
			m.Tags = nil
		}
		ids = append(ids, backUp(t, r, m, map[string]disk.Source{"disk.raw": testSource(1)}))
	}
	list := func(f Filter) []ID {
		t.Helper()
		points, err := r.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		var got []ID
		for _, p := range points {
			got = append(got, p.ID)
		}
		return got
	}
	for name, test := range map[string]struct {
		filter Filter
		want   []ID
	}{
		"all":           {Filter{}, []ID{ids[2], ids[1], ids[0]}},
		"name":          {Filter{VM: "web01"}, []ID{ids[1], ids[0]}},
		"path":          {Filter{VM: "/DC0/vm/db01"}, []ID{ids[2]}},
		"BIOS UUID":     {Filter{VM: "421C0B7A-0000-4000-8000-000000000001"}, []ID{ids[1], ids[0]}},
		"instance UUID": {Filter{VM: "501C0B7A-0000-4000-8000-000000000002"}, []ID{ids[1], ids[0]}},
		"other case":    {Filter{VM: "WEB01"}, nil},
		"before":        {Filter{Before: base.CreatedAt.Add(time.Hour)}, []ID{ids[0]}},
		"after":         {Filter{After: base.CreatedAt.Add(time.Hour)}, []ID{ids[2]}},
		"tag":           {Filter{Tags: map[string]string{"env": "prod"}}, []ID{ids[1], ids[0]}},
		"own tag":       {Filter{Tags: map[string]string{"terraform.x": "y", "": "empty"}}, []ID{ids[1], ids[0]}},
		"other value":   {Filter{Tags: map[string]string{"env": "test"}}, nil},
		"filesystem":    {Filter{MinConsistency: "filesystem"}, []ID{ids[2], ids[1]}},
		"application":   {Filter{MinConsistency: "application"}, []ID{ids[1]}},
		"both":          {Filter{VM: "web01", MinConsistency: "filesystem"}, []ID{ids[1]}},
	} {
		if got := list(test.filter); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	if _, err := r.List(t.Context(), Filter{MinConsistency: "perfect"}); err == nil {
		t.Error("took an unknown consistency")
	}

	points, err := r.List(t.Context(), Filter{VM: "web01", Before: base.CreatedAt.Add(time.Minute)})
	if err != nil || len(points) != 1 {
		t.Fatal(points, err)
	}
	p := points[0]
	if !p.CreatedAt.Equal(base.CreatedAt) || p.VMName != base.VM.Name || p.VMPath != base.VM.Path ||
		p.BIOSUUID != base.VM.BIOSUUID || p.InstanceUUID != base.VM.InstanceUUID || p.Consistency != "crash" ||
		p.Description != base.Description || p.SizeBytes != testSource(1).capacity || len(p.Tags) != len(base.Tags) {
		t.Errorf("listed %+v", p)
	}

	other := open(t, c)
	for range 2 { // what is gone is no error
		if err := r.Delete(t.Context(), ids[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Delete(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	if got := list(Filter{}); !slices.Equal(got, []ID{ids[2], ids[0]}) {
		t.Errorf("after the deletion: %v", got)
	}
	for _, id := range []ID{ids[1], "", "../x", "0123456789abcdef0123456789abcdef"} {
		if _, err := other.Get(t.Context(), id); !errors.Is(err, ErrNotFound) {
			t.Errorf("get %q: %v", id, err)
		}
		if err := other.Delete(t.Context(), id); err != nil {
			t.Errorf("delete %q: %v", id, err)
		}
	}
	if b := readDisk(t, other, ids[0], firstDisk(t, other, ids[0])); !bytes.Equal(b, testSource(1).bytes()) {
		t.Error("a disk differs after another restore point was deleted")
	}
}

// Kopia merges small manifests while it reads them, once there are more than a few. Listing must not
// write, and no restore point may get lost.
func TestManyRestorePoints(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	want := map[ID]bool{}
	for range 40 {
		want[backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": &source{capacity: mib}})] = true
	}
	points, err := open(t, c).List(t.Context(), Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		delete(want, p.ID)
	}
	if len(points) != 40 || len(want) != 0 {
		t.Errorf("listed %d, missing %v", len(points), want)
	}
	var blobs int
	err = r.rep.ContentReader().IterateContents(t.Context(), content.IterateOptions{
		Range: index.PrefixRange(manifest.ContentPrefix),
	}, func(content.Info) error {
		blobs++
		return nil
	})
	if err != nil || blobs > 20 {
		t.Errorf("%d blobs of manifests, %v", blobs, err)
	}
}

// Consistency is a word that a filter can ask for, or a backup could never be found by it.
func TestCommit_unknownConsistency(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	for _, consistency := range []string{"", "memory"} {
		w, err := r.NewWriter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := testManifest()
		m.Consistency = consistency
		writeDisk(t, w, m, "disk.raw", testSource(1))
		if _, err := w.Commit(t.Context(), m, testFiles); err == nil || !strings.Contains(err.Error(), "consistency") {
			t.Errorf("%q: got error %v", consistency, err)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A restore point of an older version has its description in the manifest of its snapshot alone.
func TestList_olderVersion(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	first, err := r.snapshot(t.Context(), backUp(t, r, testManifest(), nil))
	if err != nil {
		t.Fatal(err)
	}
	older := newSnapshot(testManifest(), first.RootEntry, time.Now())
	older.Description = "older"
	delete(older.Tags, labelDescription)
	err = repo.WriteSession(t.Context(), r.rep, writeOptions("test"), func(ctx context.Context, w repo.RepositoryWriter) error {
		_, err := snapshot.SaveSnapshot(ctx, w, older)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	points, err := r.List(t.Context(), Filter{})
	if err != nil || len(points) != 2 {
		t.Fatalf("%v, %v", points, err)
	}
	if got := []string{points[0].Description, points[1].Description}; !slices.Contains(got, "older") || !slices.Contains(got, first.Description) {
		t.Errorf("descriptions %q", got)
	}
}
