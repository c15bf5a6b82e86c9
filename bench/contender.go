package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
)

// A contender does one piece of work in one way.
type contender struct {
	name string
	// run does the work once and says what it cost. What the work leaves behind is removed before it
	// returns, as far as nobody else needs it.
	run func(ctx context.Context) (outcome, error)
}

// An outcome is what one run of a contender came to.
type outcome struct {
	Usage  usage   `json:"usage"`
	Stored int64   `json:"stored_bytes,omitempty"`      // on the disk that it was written to
	Read   int64   `json:"read_bytes,omitempty"`        // from the virtual machine's datastore
	Inside float64 `json:"operation_seconds,omitempty"` // by the provider's own account, without Terraform's start
}

// compete has contenders do the same work in turn, A B A B, so that what the machine does besides hits
// all of them.
func (b *bench) compete(ctx context.Context, section string, contenders ...contender) error {
	for round := range b.rounds {
		for _, c := range contenders {
			o, err := c.run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			b.report.add(section, c.name, o)
			fmt.Fprintf(os.Stderr, "%s: round %d: %s: %.2f s\n", section, round+1, c.name, o.Usage.Seconds)
		}
	}
	return nil
}

// A series is all runs of one contender.
type series struct {
	Section string    `json:"section"`
	What    string    `json:"what"`
	Runs    []outcome `json:"runs"`
}

// median of what the runs came to.
func (s *series) median(of func(outcome) float64) float64 {
	values := make([]float64, len(s.Runs))
	for i, r := range s.Runs {
		values[i] = of(r)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

func seconds(o outcome) float64     { return o.Usage.Seconds }
func cpuSeconds(o outcome) float64  { return o.Usage.CPUSeconds }
func labSeconds(o outcome) float64  { return o.Usage.LabSeconds }
func idleSeconds(o outcome) float64 { return o.Usage.IdleSeconds }
func stored(o outcome) float64      { return float64(o.Stored) }
func inside(o outcome) float64      { return cmp.Or(o.Inside, o.Usage.Seconds) }

// peak is the largest of all runs.
func (s *series) peak() int64 {
	var most int64
	for _, r := range s.Runs {
		most = max(most, r.Usage.PeakBytes)
	}
	return most
}
