// Package progresstest lets tests look at what an operation said of its progress.
package progresstest

import (
	"context"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// A Listener keeps what an operation said.
type Listener struct {
	stop func()

	mu     sync.Mutex
	states []progress.State
}

// Follow follows what is done under the returned context.
func Follow(t testing.TB) (context.Context, *Listener) {
	t.Helper()
	l := &Listener{}
	ctx, stop := progress.Follow(t.Context(), func(s progress.State) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.states = append(l.states, s)
	})
	l.stop = stop
	t.Cleanup(stop)
	return ctx, l
}

// Ended is what was said of a phase when it ended. A phase that wasn't said to have ended fails the test. Nothing is
// heard after the first call.
func (l *Listener) Ended(t testing.TB, phase string) progress.State {
	t.Helper()
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.states {
		if s.Phase == phase && s.Ended {
			return s
		}
	}
	t.Fatalf("nothing was said of the end of %q, only: %v", phase, l.states)
	return progress.State{}
}
