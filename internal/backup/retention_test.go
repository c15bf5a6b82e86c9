package backup_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/backup"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// pointAt is a restore point that retention governs.
func pointAt(t *testing.T, id, at string) repository.RestorePoint {
	t.Helper()
	created, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	return repository.RestorePoint{ID: repository.ID(id), CreatedAt: created, Governed: true}
}

func kept(verdicts []backup.Verdict) []string {
	var ids []string
	for _, v := range verdicts {
		if v.Keep {
			ids = append(ids, string(v.Point.ID))
		}
	}
	return ids
}

func TestRetention(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rules  backup.Retention
		points string // id=time, oldest first
		want   string // in the order of age, the newest first
	}{
		"last":       {backup.Retention{Last: 2}, "a=2026-03-01T00:00:00Z b=2026-03-02T00:00:00Z c=2026-03-03T00:00:00Z", "c b"},
		"fewer":      {backup.Retention{Last: 9}, "a=2026-03-01T00:00:00Z b=2026-03-02T00:00:00Z", "b a"},
		"none there": {backup.Retention{Last: 1}, "", ""},
		"one":        {backup.Retention{Yearly: 1}, "a=1999-03-01T00:00:00Z", "a"},
		"newest of each hour": {backup.Retention{Hourly: 2},
			"a=2026-03-01T08:59:59Z b=2026-03-01T09:00:00Z c=2026-03-01T09:59:59Z d=2026-03-01T10:00:00Z e=2026-03-01T10:30:00Z", "e c"},
		"newest of each day": {backup.Retention{Daily: 2},
			"a=2026-03-01T10:00:00Z b=2026-03-02T01:00:00Z c=2026-03-02T23:59:59Z d=2026-03-03T00:00:00Z", "d c"},
		"days of UTC": {backup.Retention{Daily: 9}, // both on the second of March
			"a=2026-03-01T20:00:00-05:00 b=2026-03-03T00:30:00+02:00", "b"},
		"only days with one": {backup.Retention{Daily: 3},
			"a=2025-01-01T00:00:00Z b=2025-06-01T00:00:00Z c=2026-02-01T00:00:00Z d=2026-03-01T00:00:00Z", "d c b"},
		"weeks begin on Mondays": {backup.Retention{Weekly: 2},
			"a=2026-03-01T23:00:00Z b=2026-03-02T00:00:00Z c=2026-03-08T23:00:00Z d=2026-03-09T00:00:00Z", "d c"},
		"a week of two years": {backup.Retention{Weekly: 9}, // 2026-W01 begins in 2025
			"a=2025-12-29T00:00:00Z b=2026-01-04T00:00:00Z", "b"},
		"months": {backup.Retention{Monthly: 2},
			"a=2026-01-31T00:00:00Z b=2026-02-01T00:00:00Z c=2026-02-28T00:00:00Z d=2026-03-01T00:00:00Z", "d c"},
		"the same month of another year": {backup.Retention{Monthly: 2}, "a=2025-03-01T00:00:00Z b=2026-03-01T00:00:00Z", "b a"},
		"years":                          {backup.Retention{Yearly: 2}, "a=2024-12-31T23:00:00Z b=2025-01-01T00:00:00Z c=2025-12-31T00:00:00Z d=2026-01-01T00:00:00Z", "d c"},
		"together": {backup.Retention{Last: 1, Daily: 2, Yearly: 2},
			"a=2025-02-01T00:00:00Z b=2025-03-01T00:00:00Z c=2026-03-02T08:00:00Z d=2026-03-02T09:00:00Z e=2026-03-03T09:00:00Z", "e d b"},
		"nothing": {backup.Retention{}, "a=2026-03-01T00:00:00Z b=2026-03-02T00:00:00Z", "b"},
		"pinned take no place": {backup.Retention{Last: 1, Daily: 2},
			"!p=2026-02-01T00:00:00Z a=2026-03-01T00:00:00Z b=2026-03-02T00:00:00Z !q=2026-03-03T00:00:00Z", "q b a p"},
		"only pinned":   {backup.Retention{Last: 1}, "!p=2026-02-01T00:00:00Z !q=2026-03-03T00:00:00Z", "q p"},
		"the same time": {backup.Retention{Last: 1}, "a=2026-03-01T00:00:00Z b=2026-03-01T00:00:00Z", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var points []repository.RestorePoint
			for _, text := range strings.Fields(test.points) {
				id, at, _ := strings.Cut(text, "=")
				p := pointAt(t, strings.TrimPrefix(id, "!"), at)
				p.Governed = !strings.HasPrefix(id, "!")
				points = append(points, p)
			}
			verdicts := test.rules.Judge(points)
			if len(verdicts) != len(points) {
				t.Fatalf("%d verdicts on %d restore points", len(verdicts), len(points))
			}
			if got := strings.Join(kept(verdicts), " "); got != test.want {
				t.Errorf("kept %q, want %q: %+v", got, test.want, verdicts)
			}
			for _, v := range verdicts {
				if v.Keep != (len(v.Reasons) > 0) {
					t.Errorf("%s: kept %v for the reasons %v", v.Point.ID, v.Keep, v.Reasons)
				}
			}
		})
	}
}

func TestRetention_reasons(t *testing.T) {
	t.Parallel()
	points := []repository.RestorePoint{
		pointAt(t, "a", "2026-01-01T00:00:00Z"), pointAt(t, "b", "2026-03-01T00:00:00Z"), pointAt(t, "c", "2026-03-01T09:00:00Z"),
	}
	got := fmt.Sprint(backup.Retention{Last: 2, Monthly: 2}.Judge(points))
	for _, want := range []string{"true [newest last monthly]", "true [last]", "true [monthly]"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s has no %s", got, want)
		}
	}
}

// random rules and restore points, many of them close together.
func randomRetention(r *rand.Rand) backup.Retention {
	n := func() int { return max(0, r.IntN(8)-3) }
	return backup.Retention{Last: n(), Hourly: n(), Daily: n(), Weekly: n(), Monthly: n(), Yearly: n()}
}

func randomPoint(r *rand.Rand, n int) repository.RestorePoint {
	ages := []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour}
	age := time.Duration(r.Int64N(int64(3 * ages[r.IntN(len(ages))])))
	return repository.RestorePoint{
		ID: repository.ID(fmt.Sprintf("%04d", n)), Governed: r.IntN(5) > 0,
		CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(-age.Truncate(time.Minute)),
	}
}

// TestRetention_properties checks what must hold for any rules and any restore points.
func TestRetention_properties(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		rules := randomRetention(r)
		var points []repository.RestorePoint
		for n := range r.IntN(40) {
			points = append(points, randomPoint(r, n))
		}
		keep := keptSet(rules, points)
		var newest *repository.RestorePoint
		for i, p := range points {
			if !p.Governed && !keep[p.ID] {
				t.Fatalf("seed %d: %s is pinned and goes", seed, p.ID)
			}
			if p.Governed && (newest == nil || !p.CreatedAt.Before(newest.CreatedAt)) {
				newest = &points[i]
			}
		}
		if newest != nil && !keep[newest.ID] {
			t.Fatalf("seed %d: the newest goes", seed)
		}

		// Once more changes nothing.
		left := slices.DeleteFunc(slices.Clone(points), func(p repository.RestorePoint) bool { return !keep[p.ID] })
		if again := keptSet(rules, left); len(again) != len(left) {
			t.Fatalf("seed %d: %d of %d stay the second time", seed, len(again), len(left))
		}

		// Rules that keep more keep all of it.
		more := rules
		more.Last, more.Hourly, more.Daily = rules.Last+r.IntN(2), rules.Hourly+r.IntN(2), rules.Daily+r.IntN(2)
		more.Weekly, more.Monthly, more.Yearly = rules.Weekly+r.IntN(2), rules.Monthly+r.IntN(2), rules.Yearly+r.IntN(2)
		for id := range keep {
			if !keptSet(more, points)[id] {
				t.Fatalf("seed %d: %s stays with %+v and goes with %+v", seed, id, rules, more)
			}
		}

		// One more restore point lets others go, but brings none back: two who prune at once, one of whom
		// doesn't know it yet, remove nothing that either would keep later.
		for id := range keptSet(rules, append(slices.Clone(points), randomPoint(r, len(points)))) {
			if !keep[id] && id != repository.ID(fmt.Sprintf("%04d", len(points))) {
				t.Fatalf("seed %d: %s stays because of one more", seed, id)
			}
		}
	}
}

func keptSet(rules backup.Retention, points []repository.RestorePoint) map[repository.ID]bool {
	set := map[repository.ID]bool{}
	for _, id := range kept(rules.Judge(points)) {
		set[repository.ID(id)] = true
	}
	return set
}
