// Package progress tells from time to time how far something is that takes long.
package progress

import "time"

// Interval is the time between two reports.
const Interval = 15 * time.Second

// Watch calls report every Interval until the returned function is called, and once more then. Reports
// don't overlap, and none comes after stop has returned.
func Watch(report func()) (stop func()) {
	quit, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(Interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				report()
			case <-quit:
				report()
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-stopped
	}
}

// Rate is how many MiB per second n bytes in a time are.
func Rate(n int64, elapsed time.Duration) int64 {
	if elapsed <= 0 {
		return 0
	}
	return int64(float64(n) / elapsed.Seconds() / (1 << 20))
}

// Left is how long it takes to do what remains of a total, at the pace of what is done. Zero: nothing
// remains, or nothing can be said yet.
func Left(done, total int64, elapsed time.Duration) time.Duration {
	if done <= 0 || elapsed <= 0 || done >= total {
		return 0
	}
	return time.Duration(float64(elapsed) / float64(done) * float64(total-done)).Round(time.Second)
}
