package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A report is all figures of a run.
type report struct {
	Cores   int          `json:"cores"`
	Series  []*series    `json:"series"`
	Refresh []refreshRow `json:"refresh,omitempty"`
	Goals   []goal       `json:"goals"`
}

type refreshRow struct {
	What  string         `json:"what"`
	Total int            `json:"calls"`
	Calls map[string]int `json:"by_method"`
	Usage usage          `json:"usage"`
}

// A goal is something that the project wants to be true of the figures.
type goal struct {
	Work string  `json:"work"`
	Have float64 `json:"have"`
	Want float64 `json:"want"`
	Most bool    `json:"want_at_most"` // without it: at least
	Unit string  `json:"unit"`
	Met  bool    `json:"met"`
}

// add takes what a run came to.
func (r *report) add(section, what string, o outcome) {
	s := r.find(section, what)
	if s == nil {
		s = &series{Section: section, What: what}
		r.Series = append(r.Series, s)
	}
	s.Runs = append(s.Runs, o)
}

// find returns the series of a contender; nil: it didn't run.
func (r *report) find(section, what string) *series {
	i := slices.IndexFunc(r.Series, func(s *series) bool { return s.Section == section && s.What == what })
	if i < 0 {
		return nil
	}
	return r.Series[i]
}

// atLeast and atMost note how a figure compares with what is wanted.
func (r *report) atLeast(work string, have, want float64, unit string) {
	r.Goals = append(r.Goals, goal{Work: work, Have: have, Want: want, Unit: unit, Met: have >= want})
}

func (r *report) atMost(work string, have, want float64, unit string) {
	r.Goals = append(r.Goals, goal{Work: work, Have: have, Want: want, Most: true, Unit: unit, Met: have <= want})
}

// faster notes how many times as fast as another contender one is.
func (r *report) faster(section, what, than string, want float64) {
	a, b := r.find(section, what), r.find(section, than)
	if a != nil && b != nil {
		r.atLeast(fmt.Sprintf("%s: %s, speed by that of %s", section, what, than), b.median(seconds)/a.median(seconds), want, "x")
	}
}

// print shows the figures as tables. The ratio is the time of a contender by that of the first one.
func (r *report) print(out io.Writer) {
	section, first := "", 0.0
	for _, s := range r.Series {
		if s.Section != section {
			section, first = s.Section, s.median(seconds)
			fmt.Fprintf(out, "\n%s (%d cores, medians of %d)\n", section, runtime.NumCPU(), len(s.Runs))
			fmt.Fprintf(out, "%-36s%10s%8s%8s%8s%8s%12s%12s%12s%10s\n", "", "seconds", "ratio", "CPU s", "lab's", "idle", "peak", "stored", "read", "inside")
		}
		fmt.Fprintf(out, "%-36s%10.2f%8.2f%8.2f%8s%8s%12s%12s%12s%10s\n", s.What, s.median(seconds), s.median(seconds)/first,
			s.median(cpuSeconds), secondsText(s.median(labSeconds)), secondsText(s.median(idleSeconds)), size(s.peak()), orDash(int64(s.median(stored))),
			orDash(int64(s.median(func(o outcome) float64 { return float64(o.Read) }))), insideText(s))
	}
	for i, row := range r.Refresh {
		if i == 0 {
			fmt.Fprintln(out, "\nvSphere API calls of a plan")
		}
		var calls []string
		for _, method := range slices.Sorted(maps.Keys(row.Calls)) {
			calls = append(calls, fmt.Sprintf("%s %d", method, row.Calls[method]))
		}
		fmt.Fprintf(out, "%s: %d calls, %.1f s; CPU seconds: provider %.1f, Terraform %.1f, lab %.1f (%s)\n", row.What, row.Total,
			row.Usage.Seconds, row.Usage.CPUSeconds, row.Usage.TerraformSeconds, row.Usage.LabSeconds, strings.Join(calls, ", "))
	}
	if len(r.Goals) > 0 {
		fmt.Fprintln(out, "\nGoals")
	}
	for _, g := range r.Goals {
		verdict, bound := "missed", "at least"
		if g.Met {
			verdict = "met"
		}
		if g.Most {
			bound = "at most"
		}
		fmt.Fprintf(out, "%-8s%s: %.2f %s (%s %.2f)\n", verdict, g.Work, g.Have, g.Unit, bound, g.Want)
	}
}

func insideText(s *series) string {
	if s.Runs[0].Inside == 0 {
		return "-"
	}
	return secondsText(s.median(inside))
}

func secondsText(n float64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", n)
}

func orDash(n int64) string {
	if n == 0 {
		return "-"
	}
	return size(n)
}

// write writes the figures as JSON.
func (r *report) write(path string) error {
	r.Cores = runtime.NumCPU()
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// size writes bytes the way people read them.
func size(n int64) string {
	switch {
	case n >= 1<<40:
		return fmt.Sprintf("%.1f TiB", float64(n)/(1<<40))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	default:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
}
