package provider

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// roomy is the size of the heap, in bytes, up to which garbage is left where it is. A provider mostly answers small
// questions and ends: with the usual 4 MiB, a third of its time goes into collecting. What moves disks has more
// than this in use, and is collected as usual.
const roomy = 64 << 20

// collectLate has garbage collected only when the heap is roomy, and as usual beyond, unless somebody says with
// GOGC how it is to be. Its arguments are os.LookupEnv and a setter like debug.SetGCPercent. The returned function
// stops what decides anew after each collection.
func collectLate(lookup func(string) (string, bool), set func(percent int)) (stop func()) {
	var stopped atomic.Bool
	if _, ok := lookup("GOGC"); ok {
		return func() {}
	}
	// The first collection is due at that part of 4 MiB (package runtime).
	set(roomy / (4 << 20) * 100)
	var watch func()
	watch = func() {
		// What nobody holds is found by the next collection.
		runtime.AddCleanup(new([2]*byte), func(struct{}) {
			if !stopped.Load() {
				set(percentFor(liveHeap()))
				watch()
			}
		}, struct{}{})
	}
	watch()
	return func() { stopped.Store(true) }
}

// percentFor is how much the heap may grow, in percent of what is in use of it, until it is collected.
func percentFor(live uint64) int {
	return max(100, int(roomy*100/max(live, 1<<20))-100) //nolint:gosec // at most 6300
}

// liveHeap is what the last collection left, in bytes.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return roomy
	}
	return sample[0].Value.Uint64()
}

// setGCPercent is debug.SetGCPercent for those who don't ask what it was.
func setGCPercent(percent int) { debug.SetGCPercent(percent) }
