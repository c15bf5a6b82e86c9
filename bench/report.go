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
	Transfer []transferRow `json:"transfer"`
	Refresh  []refreshRow  `json:"refresh"`
}

type transferRow struct {
	Section string `json:"section"`
	What    string `json:"what"`
	Usage   usage  `json:"usage"`
	Stored  int64  `json:"stored_bytes,omitempty"`
}

type refreshRow struct {
	Snapshots int            `json:"snapshots"`
	Total     int            `json:"calls"`
	Calls     map[string]int `json:"by_method"`
	Usage     usage          `json:"usage"`
}

// add takes a figure, and shows that it is there.
func (r *report) add(row transferRow) {
	r.Transfer = append(r.Transfer, row)
	fmt.Fprintf(os.Stderr, "%s: %s: %.1f s\n", row.Section, row.What, row.Usage.Seconds)
}

// print shows the figures as tables.
func (r *report) print(out io.Writer) {
	section := ""
	for _, row := range r.Transfer {
		if row.Section != section {
			section = row.Section
			fmt.Fprintf(out, "\n%s, %d cores\n", section, runtime.NumCPU())
			fmt.Fprintf(out, "%-28s%10s%14s%14s%12s\n", "", "seconds", "CPU seconds", "peak memory", "stored")
		}
		stored := "-"
		if row.Stored > 0 {
			stored = size(row.Stored)
		}
		fmt.Fprintf(out, "%-28s%10.1f%14.1f%14s%12s\n",
			row.What, row.Usage.Seconds, row.Usage.CPUSeconds, size(row.Usage.PeakBytes), stored)
	}
	for i, row := range r.Refresh {
		if i == 0 {
			fmt.Fprintln(out, "\nvSphere API calls of a plan")
		}
		var calls []string
		for _, method := range slices.Sorted(maps.Keys(row.Calls)) {
			calls = append(calls, fmt.Sprintf("%s %d", method, row.Calls[method]))
		}
		fmt.Fprintf(out, "%4d snapshots: %3d calls, %.1f s (%s)\n", row.Snapshots, row.Total, row.Usage.Seconds, strings.Join(calls, ", "))
	}
}

// write writes the figures as JSON.
func (r *report) write(path string) error {
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
