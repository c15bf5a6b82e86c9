package progress

import (
	"fmt"
	"strings"
	"time"
)

// Figures are how far a phase is, in bytes.
type Figures struct {
	Done, Total int64 // that were gone through, and that there are to go through; Total zero: not known
	Moved       int64 // that really were read or written: what a rate is the rate of
}

// A State is what is to be said of an operation at one moment.
type State struct {
	// Said is something to be told as it is, such as what came of the operation. The rest is zero then.
	Said string

	Phase   string        // what is being done, "copying the disks"
	Attrs   []any         // names and values that go with it, as in package log/slog
	Elapsed time.Duration // since the phase began
	Ended   bool          // the phase has just ended

	Percent  int  // of the phase; -1: not known
	Measured bool // there are figures
	Figures
}

// Rate is MiB per second.
func (s State) Rate() int64 { return Rate(s.Moved, s.Elapsed) }

// Left is how long the phase will take; zero: not known.
func (s State) Left() time.Duration {
	if s.Ended {
		return 0
	}
	return Left(s.Done, s.Total, s.Elapsed)
}

// String is the state in one line for people, in sizes that they can read.
func (s State) String() string {
	if s.Said != "" {
		return s.Said
	}
	var parts []string
	if s.Ended {
		parts = append(parts, "done")
	}
	if s.Percent >= 0 && !s.Ended {
		parts = append(parts, fmt.Sprintf("%d %%", s.Percent))
	}
	switch {
	case !s.Measured:
	case s.Ended:
		parts = append(parts, Size(s.Moved), fmt.Sprintf("%d MiB/s", s.Rate()))
	case s.Total > 0:
		parts = append(parts, fmt.Sprintf("%s of %s", Size(s.Done), Size(s.Total)), fmt.Sprintf("%d MiB/s", s.Rate()))
	default:
		parts = append(parts, Size(s.Done), fmt.Sprintf("%d MiB/s", s.Rate()))
	}
	if elapsed := s.Elapsed.Round(time.Second); elapsed > 0 {
		parts = append(parts, "for "+elapsed.String())
	}
	if left := s.Left(); left > 0 {
		parts = append(parts, left.String()+" left")
	}
	if len(parts) == 0 {
		return s.Phase
	}
	return s.Phase + ": " + strings.Join(parts, ", ")
}

// Size is a number of bytes as people read it.
func Size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/1024, 0
	for size >= 1023.95 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", size, units[unit])
}
