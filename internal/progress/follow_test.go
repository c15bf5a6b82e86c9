package progress_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// A listener keeps what it is told, with the time since it was made.
type listener struct {
	start time.Time
	mu    sync.Mutex
	lines []string
	times []time.Duration
}

func (l *listener) report(s progress.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%s %s", time.Since(l.start), s))
	l.times = append(l.times, time.Since(l.start))
}

func (l *listener) want(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.lines, want) {
		t.Errorf("got:\n%q\nwant:\n%q", l.lines, want)
	}
}

// followed runs an operation with a fake clock and returns who listened to it.
func followed(t *testing.T, operation func(ctx context.Context)) *listener {
	t.Helper()
	l := &listener{}
	synctest.Test(t, func(t *testing.T) {
		l.start = time.Now()
		ctx, stop := progress.Follow(t.Context(), l.report)
		operation(ctx)
		stop()
		stop() // twice does no harm
	})
	return l
}

func TestFollow(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	followed(t, func(ctx context.Context) {
		_, waiting := progress.Enter(ctx, "waiting")
		time.Sleep(16 * time.Second)
		waiting.Leave()
		waiting.Leave()
		synctest.Wait()
		taskCtx, task := progress.Enter(ctx, "merging")
		progress.Percent(taskCtx, 40)
		time.Sleep(17 * time.Second)
		task.Leave()
		synctest.Wait()
		_, copying := progress.Enter(ctx, "copying")
		var done atomic.Int64
		copying.Measure(func() progress.Figures {
			n := done.Load()
			return progress.Figures{Done: n, Total: 100 * mib, Moved: n / 2}
		})
		time.Sleep(2 * time.Second)
		done.Store(60 * mib)
		time.Sleep(18 * time.Second)
		done.Store(100 * mib)
		copying.Leave()
		progress.Say(ctx, "copied it")
	}).want(t,
		"0s waiting",
		"15s waiting: for 15s",
		"16s waiting: done, for 16s",
		"17s merging: 40 %, for 1s",
		"32s merging: 40 %, for 16s",
		"33s merging: done, for 17s",
		"34s copying: 0 %, 0 B of 100.0 MiB, 0 MiB/s, for 1s",
		"49s copying: 60 %, 60.0 MiB of 100.0 MiB, 1 MiB/s, for 16s, 11s left",
		"53s copying: done, 50.0 MiB, 2 MiB/s, for 20s",
		"53s copied it",
	)
}

// TestFollow_limits enters a thousand phases a second, and then none for a minute.
func TestFollow_limits(t *testing.T) {
	t.Parallel()
	l := followed(t, func(ctx context.Context) {
		for i := range 5000 {
			_, phase := progress.Enter(ctx, fmt.Sprint("phase ", i))
			time.Sleep(time.Millisecond)
			phase.Leave()
		}
		time.Sleep(time.Minute)
	})
	if n := len(l.times); n > 5+1+5 {
		t.Errorf("%d reports", n)
	}
	for i := 1; i < len(l.times); i++ {
		if gap := l.times[i] - l.times[i-1]; gap < progress.Gap || gap > progress.Interval {
			t.Errorf("%s between two reports: %q", gap, l.lines[i-1:i+1])
		}
	}
	if end := l.times[len(l.times)-1]; end < 45*time.Second {
		t.Errorf("the last report came after %s", end)
	}
}

// TestFollow_nested has the phase told about that began last, and the one around it when that has ended.
func TestFollow_nested(t *testing.T) {
	t.Parallel()
	followed(t, func(ctx context.Context) {
		ctx, outer := progress.Enter(ctx, "outer")
		time.Sleep(2 * time.Second)
		_, inner := progress.Enter(ctx, "inner")
		time.Sleep(2 * time.Second)
		inner.Leave()
		time.Sleep(14 * time.Second)
		outer.Leave()
	}).want(t, "0s outer", "2s inner", "17s outer: for 17s", "18s outer: done, for 18s")
}

// TestFollow_gone has nobody take what is told, as when Terraform was killed: the operation goes on, and ends.
func TestFollow_gone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		ctx, stop := progress.Follow(t.Context(), func(progress.State) { <-never })
		for range 1000 {
			_, phase := progress.Enter(ctx, "phase")
			phase.Measure(func() progress.Figures { return progress.Figures{} })
			phase.Leave()
			progress.Say(ctx, "something")
		}
		start := time.Now()
		stop()
		if waited := time.Since(start); waited > 10*time.Second {
			t.Errorf("the end waited %s", waited)
		}
		close(never)
	})
}

// TestEnter_unfollowed does without a listener.
func TestEnter_unfollowed(t *testing.T) {
	t.Parallel()
	ctx, phase := progress.Enter(t.Context(), "phase")
	phase.Measure(func() progress.Figures { t.Error("measured"); return progress.Figures{} })
	progress.Percent(ctx, 3)
	progress.Say(ctx, "said")
	phase.Leave()
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 1536 << 20: "1.5 GiB", 5 << 40: "5.0 TiB",
		1<<63 - 1: "8.0 EiB",
	} {
		if got := progress.Size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
