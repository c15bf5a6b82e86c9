package repository

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/manifest"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

var verifiedAt = time.Date(2026, 3, 2, 12, 0, 0, 5, time.UTC)

func record(t *testing.T, r *Repository, v Verification) {
	t.Helper()
	if err := r.RecordVerification(t.Context(), v); err != nil {
		t.Fatal(err)
	}
}

func verifications(t *testing.T, r *Repository) map[ID][]Verification {
	t.Helper()
	all, err := r.Verifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func countVerifications(t *testing.T, r *Repository) int {
	t.Helper()
	if err := r.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := r.rep.FindManifests(t.Context(), map[string]string{manifest.TypeLabelKey: verificationType})
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestRecordVerification(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	small := map[string]disk.Source{"disk.raw": &source{capacity: 512, extents: []extent{{0, random(9, 512)}}}}
	id, other := backUp(t, r, testManifest(), small), backUp(t, r, testManifest(), small)
	index := Verification{Point: id, Level: VerifyIndex, At: verifiedAt, OK: true, Duration: time.Second, Version: "1"}
	data := Verification{Point: id, Level: VerifyData, At: verifiedAt.Add(time.Hour), Problems: []string{"a", "b"}, Version: "1"}
	others := Verification{Point: other, Level: VerifyRestore, At: verifiedAt, OK: true, Version: "2"}
	for _, v := range []Verification{index, data, others} {
		record(t, r, v)
	}
	want := map[ID][]Verification{id: {data, index}, other: {others}}
	elsewhere := open(t, c)
	for _, r := range []*Repository{r, elsewhere} { // another process sees the same
		if got := verifications(t, r); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	// One replaces another of its level, but not one that ended later.
	late, early := index, index
	late.At, early.At = verifiedAt.Add(2*time.Hour), verifiedAt.Add(-time.Hour)
	late.OK, late.Problems = false, []string{"gone"}
	record(t, r, late)
	if n := countVerifications(t, r); n != 3 {
		t.Errorf("%d are kept", n)
	}
	record(t, r, early)
	want[id] = []Verification{late, data}
	if got := verifications(t, r); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for level, want := range map[VerifyLevel]int{"": 2, VerifyIndex: 1, VerifyRestore: 1} {
		points, err := r.List(t.Context(), Filter{MinVerification: level})
		if err != nil || len(points) != want || want == 1 && points[0].ID != other {
			t.Errorf("verified at %q: %v, %v", level, points, err)
		}
	}
	if points, err := r.List(t.Context(), Filter{MinVerification: "other"}); err == nil {
		t.Errorf("listed %v", points)
	}
	if err := r.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	// What was damaged is in the repository still.
	if n := countVerifications(t, r); n != 3 {
		t.Errorf("%d are kept, want one that is left, and what was found of the other, twice", n)
	}
	longAfter := index
	longAfter.Point, longAfter.At = other, verifiedAt.Add(damageKept+3*time.Hour)
	record(t, r, longAfter)
	if n := countVerifications(t, r); n != 2 {
		t.Errorf("%d are kept after a long time, want two of the one that is left", n)
	}
	for _, gone := range []ID{id, ID(strings.Repeat("0", 32)), "x"} {
		index.Point = gone
		if err := r.RecordVerification(t.Context(), index); !errors.Is(err, ErrNotFound) {
			t.Errorf("of %q: %v", gone, err)
		}
	}
}

// Somebody who knows nothing of verifications deletes a restore point; the next who records one cleans up.
func TestRecordVerification_orphan(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	small := map[string]disk.Source{"disk.raw": &source{capacity: 512, extents: []extent{{0, random(9, 512)}}}}
	id, other := backUp(t, r, testManifest(), small), backUp(t, r, testManifest(), small)
	record(t, r, Verification{Point: id, Level: VerifyData, At: verifiedAt, OK: true})
	k := connectKopia(t, c.Path)
	if out := k.run(t, "snapshot", "list", "--all"); strings.Count(out, "/DC0/vm/web01") != 1 || strings.Contains(out, verificationType) {
		t.Errorf("kopia lists\n%s", out)
	}
	k.run(t, "snapshot", "delete", string(id), "--delete")
	if n := countVerifications(t, r); n != 1 {
		t.Errorf("kopia leaves %d", n)
	}
	record(t, r, Verification{Point: other, Level: VerifyIndex, At: verifiedAt, OK: true})
	if all := verifications(t, r); countVerifications(t, r) != 1 || len(all[other]) != 1 {
		t.Errorf("got %+v", all)
	}
}

// Those who record at the same time don't disturb each other.
func TestRecordVerification_atOnce(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": &source{capacity: 512, extents: []extent{{0, random(9, 512)}}}})
	var group sync.WaitGroup
	for n := range 2 {
		writer := open(t, c)
		group.Go(func() {
			for i := range 3 {
				v := Verification{Point: id, Level: VerifyLevels()[i], At: verifiedAt.Add(time.Duration(n) * time.Minute), OK: true}
				if err := writer.RecordVerification(context.WithoutCancel(t.Context()), v); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	all := verifications(t, r)[id]
	if len(all) != 3 {
		t.Fatalf("got %+v", all)
	}
	for _, v := range all {
		if want := verifiedAt.Add(time.Minute); !v.At.Equal(want) {
			t.Errorf("%s: %s, want the newest, %s", v.Level, v.At, want)
		}
	}
}

func TestVerified(t *testing.T) {
	t.Parallel()
	v := func(level VerifyLevel, hours int, ok bool) Verification {
		return Verification{Level: level, At: verifiedAt.Add(time.Duration(hours) * time.Hour), OK: ok}
	}
	for name, c := range map[string]struct {
		all  []Verification // the newest first
		want map[VerifyLevel]int
	}{
		"none":                 {nil, nil},
		"index":                {[]Verification{v(VerifyIndex, 1, true)}, map[VerifyLevel]int{VerifyIndex: 1}},
		"the higher covers":    {[]Verification{v(VerifyRestore, 1, true)}, map[VerifyLevel]int{VerifyIndex: 1, VerifyData: 1, VerifyRestore: 1}},
		"the newest that does": {[]Verification{v(VerifyIndex, 3, true), v(VerifyData, 2, true)}, map[VerifyLevel]int{VerifyIndex: 3, VerifyData: 2}},
		"damaged since":        {[]Verification{v(VerifyIndex, 3, false), v(VerifyRestore, 2, true)}, nil},
		"mended since":         {[]Verification{v(VerifyData, 3, true), v(VerifyIndex, 2, false)}, map[VerifyLevel]int{VerifyIndex: 3, VerifyData: 3}},
		"the index can't see it": {
			[]Verification{v(VerifyIndex, 3, true), v(VerifyData, 2, false), v(VerifyRestore, 1, true)}, nil,
		},
		"read again": {
			[]Verification{v(VerifyRestore, 3, true), v(VerifyData, 2, false)},
			map[VerifyLevel]int{VerifyIndex: 3, VerifyData: 3, VerifyRestore: 3},
		},
		"doesn't boot": {
			[]Verification{v(VerifyRestore, 3, false), v(VerifyData, 2, true)}, map[VerifyLevel]int{VerifyIndex: 2, VerifyData: 2},
		},
	} {
		for _, level := range VerifyLevels() {
			got, ok := Verified(c.all, level)
			hours, want := c.want[level]
			if ok != want || ok && !got.At.Equal(verifiedAt.Add(time.Duration(hours)*time.Hour)) {
				t.Errorf("%s, %s: got %+v, %v", name, level, got, ok)
			}
		}
	}
}
