package provider

import (
	"runtime"
	"testing"
	"time"
)

// TestPercentFor sizes heaps: none is collected before it is roomy, nor grows to more than twice what is in use
// beyond.
func TestPercentFor(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{
		0: 6300, 1 << 20: 6300, 4 << 20: 1500, 16 << 20: 300, roomy / 2: 100, roomy: 100, 1 << 40: 100,
	} {
		if got := percentFor(live); got != want {
			t.Errorf("%d bytes: %d percent, want %d", live, got, want)
		}
	}
}

// TestCollectLate decides anew after each collection, unless it is told how to collect.
func TestCollectLate(t *testing.T) {
	t.Parallel()
	told := func(string) (string, bool) { return "50", true }
	collectLate(told, func(percent int) { t.Errorf("set to %d although GOGC is set", percent) })()

	untold := func(string) (string, bool) { return "", false }
	percents := make(chan int, 1)
	stop := collectLate(untold, func(percent int) {
		select {
		case percents <- percent:
		default: // collected for another test, too
		}
	})
	defer stop()
	if first := <-percents; first != 1600 {
		t.Errorf("%d percent at first", first)
	}
	inUse := make([]byte, roomy)
	for n := range 4 {
		runtime.GC()
		select {
		case percent := <-percents:
			if percent != 100 && n >= 2 { // one may be of before, and another on its way
				t.Errorf("%d percent of %d bytes in use", percent, liveHeap())
			}
		case <-time.After(time.Minute):
			t.Fatal("nothing was decided after a collection")
		}
	}
	runtime.KeepAlive(inUse)
}
