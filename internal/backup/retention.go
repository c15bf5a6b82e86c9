package backup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A Retention says how many restore points of a VM are kept. Every rule keeps the newest restore point of each
// of so many hours, days, … in which there is one, all in UTC, where weeks begin on Mondays (ISO 8601). What one
// rule keeps is kept. The newest restore point is kept whatever the rules say: a VM is never left without one
// because none was taken for a while.
type Retention struct {
	Last    int // the newest so many, whenever they were taken
	Hourly  int
	Daily   int
	Weekly  int
	Monthly int
	Yearly  int
}

// A retentionRule keeps the newest restore point in each of the newest so many slots.
type retentionRule struct {
	name  string // what people call a slot
	count int
	slot  func(p repository.RestorePoint) string
}

func (r Retention) rules() []retentionRule {
	at := func(layout string) func(repository.RestorePoint) string {
		return func(p repository.RestorePoint) string { return p.CreatedAt.UTC().Format(layout) }
	}
	return []retentionRule{
		{"last", r.Last, func(p repository.RestorePoint) string { return string(p.ID) }},
		{"hourly", r.Hourly, at("2006-01-02T15")},
		{"daily", r.Daily, at(time.DateOnly)},
		{"weekly", r.Weekly, func(p repository.RestorePoint) string {
			year, week := p.CreatedAt.UTC().ISOWeek()
			return fmt.Sprintf("%d-W%02d", year, week)
		}},
		{"monthly", r.Monthly, at("2006-01")},
		{"yearly", r.Yearly, at("2006")},
	}
}

// check refuses a retention that says nothing, which is more likely a mistake than the wish to keep one.
func (r Retention) check() error {
	sum := 0
	for _, rule := range r.rules() {
		if rule.count < 0 {
			return fmt.Errorf("retention keeps %d %s restore points", rule.count, rule.name)
		}
		sum = max(sum, rule.count)
	}
	if sum == 0 {
		return errors.New("retention keeps nothing")
	}
	return nil
}

// A Verdict is what a Retention says about a restore point.
type Verdict struct {
	Point   repository.RestorePoint
	Keep    bool
	Reasons []string // of keeping: names of rules ("daily"), "newest", "pinned", "future" or "damaged"; none for what goes
}

// Reasons to keep a restore point that are not rules.
const (
	reasonPinned = "pinned" // retention doesn't govern it
	reasonNewest = "newest"
	reasonFuture = "future" // a clock was wrong

	reasonDamaged = "damaged" // which a verification found; somebody has to look at it
)

// Judge says which restore points of one VM are kept, in the order of their age, the newest first. All of
// points must be of one series (see seriesOf). Those that retention doesn't govern are kept, and take nobody's
// place.
func (r Retention) Judge(points []repository.RestorePoint) []Verdict {
	points = slices.Clone(points)
	slices.SortFunc(points, func(a, b repository.RestorePoint) int {
		if order := b.CreatedAt.Compare(a.CreatedAt); order != 0 {
			return order
		}
		return strings.Compare(string(b.ID), string(a.ID))
	})
	verdicts := make([]Verdict, len(points))
	newest := true
	for i, p := range points {
		verdicts[i].Point = p
		switch {
		case !p.Governed:
			verdicts[i].keep(reasonPinned)
		case newest:
			verdicts[i].keep(reasonNewest)
			newest = false
		}
	}
	for _, rule := range r.rules() {
		last, left := "", rule.count
		for i := range verdicts {
			if !verdicts[i].Point.Governed {
				continue
			}
			slot := rule.slot(verdicts[i].Point)
			if slot == last {
				continue
			}
			if left--; left < 0 {
				break
			}
			last = slot
			verdicts[i].keep(rule.name)
		}
	}
	return verdicts
}

func (v *Verdict) keep(reason string) {
	v.Keep = true
	v.Reasons = append(v.Reasons, reason)
}

// A series is what a Retention applies to: the restore points of one VM that leave out the same disks. One
// without a disk is no substitute for one with it, however new it is.
type series struct{ server, instance, excluded string }

func seriesOf(p repository.RestorePoint) series {
	return series{p.Server, strings.ToLower(p.InstanceUUID), p.Excluded}
}
