// Package progress says what a long operation is doing and how far it is.
//
// Who starts an operation follows it; what it does enters phases, on the way down. The two know each other by
// the context alone, so that nothing in between has to pass anything on:
//
//	ctx, stop := progress.Follow(ctx, report)   // in the provider
//	defer stop()
//
//	ctx, phase := progress.Enter(ctx, "copying the disks", "vm", name)   // in a domain package
//	defer phase.Leave()
//	phase.Measure(figures)
//
// Without a follower, phases cost next to nothing and say nothing.
package progress

import "time"

const (
	// Interval is the time between two reports on an operation in which nothing begins or ends.
	Interval = 15 * time.Second

	// Gap is the time between two reports at least. What begins and ends in between is not reported.
	Gap = time.Second
)

// Rate is how many MiB per second n bytes in a time are.
func Rate(n int64, elapsed time.Duration) int64 {
	if elapsed <= 0 {
		return 0
	}
	return int64(float64(n) / elapsed.Seconds() / (1 << 20))
}

// Since is how long something took since a time, as logs write it.
func Since(start, now time.Time) string { return now.Sub(start).Round(time.Millisecond).String() }

// Left is how long it takes to do what remains of a total, at the pace of what is done. Zero: nothing
// remains, or nothing can be said yet.
func Left(done, total int64, elapsed time.Duration) time.Duration {
	if done <= 0 || elapsed <= 0 || done >= total {
		return 0
	}
	return time.Duration(float64(elapsed) / float64(done) * float64(total-done)).Round(time.Second)
}
