package progress_test

import (
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

func TestRate(t *testing.T) {
	t.Parallel()
	if got := progress.Rate(10<<20, 2*time.Second); got != 5 {
		t.Errorf("got %d MiB/s, want 5", got)
	}
	if got := progress.Rate(10<<20, 0); got != 0 {
		t.Errorf("got %d MiB/s in no time", got)
	}
}

func TestLeft(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		done, total int64
		elapsed     time.Duration
		want        time.Duration
	}{
		{0, 100, time.Minute, 0}, {25, 100, time.Minute, 3 * time.Minute}, {100, 100, time.Minute, 0},
		{120, 100, time.Minute, 0}, {1, 100, 0, 0}, {1 << 40, 1 << 44, time.Hour, 15 * time.Hour},
	} {
		if got := progress.Left(c.done, c.total, c.elapsed); got != c.want {
			t.Errorf("%d of %d in %v: %v left, want %v", c.done, c.total, c.elapsed, got, c.want)
		}
	}
}
