package vsphere

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestLimits_bounds(t *testing.T) {
	t.Parallel()
	l := newLimits(2, 3, 4)
	var running atomic.Int32
	perVM := map[string]*atomic.Int32{"a": {}, "b": {}, "c": {}}
	perHost := map[string]*atomic.Int32{"h1": {}, "h2": {}}
	var wg sync.WaitGroup
	for i := range 60 {
		vm, host := []string{"a", "b", "c"}[i%3], []string{"h1", "h2"}[i%2]
		wg.Go(func() {
			release, err := l.acquire(t.Context(), vm, host)
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			for _, c := range []struct {
				n   *atomic.Int32
				max int32
			}{{&running, 4}, {perVM[vm], 2}, {perHost[host], 3}} {
				if now := c.n.Add(1); now > c.max {
					t.Errorf("%d at a time, want at most %d", now, c.max)
				}
				defer c.n.Add(-1)
			}
		})
	}
	wg.Wait()
	if len(l.slots) != 0 {
		t.Errorf("%d semaphores are left of VMs and hosts that nobody uses", len(l.slots))
	}
}

func TestLimits_cancelled(t *testing.T) {
	t.Parallel()
	for name, held := range map[string][2]string{"vm": {"a", ""}, "host": {"b", "h"}, "server": {"b", "g"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLimits(1, 1, 1)
			release, err := l.acquire(t.Context(), held[0], held[1])
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := l.acquire(ctx, "a", "h"); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want context.Canceled", err)
			}
			release()
			release() // does no harm
			// Nothing of the cancelled attempt is held.
			release, err = l.acquire(t.Context(), "a", "h")
			if err != nil {
				t.Fatal(err)
			}
			release()
		})
	}
}
