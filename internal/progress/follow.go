package progress

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// maxQueue is how much that must be told may wait for a listener that doesn't take it.
	maxQueue = 256

	// stopTimeout is how long the end of an operation waits for a listener to take the last reports. One that
	// has gone away never takes them.
	stopTimeout = 5 * time.Second
)

// A follower knows the phases of one operation, and reports them.
type follower struct {
	report func(State)

	mu     sync.Mutex
	phases []*Phase  // under way, in the order in which they began
	queue  []State   // must be told
	idle   time.Time // when the last phase ended

	wake chan struct{}
	quit chan struct{}
}

type (
	followerKey struct{}
	phaseKey    struct{}
)

// Follow has an operation followed that is carried out under the returned context: report is told which phase it is
// in when one begins, every Interval while it lasts, and what must be told (see Say) in any case. Calls of report
// don't overlap, come from another goroutine, and may block: the operation doesn't wait for them, and what is
// out of date by then is left out. After stop has returned no call begins; stop waits for the last ones, but not
// for a listener that has gone away.
func Follow(ctx context.Context, report func(State)) (followed context.Context, stop func()) {
	f := &follower{report: report, idle: time.Now(), wake: make(chan struct{}, 1), quit: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run()
	}()
	var once sync.Once
	return context.WithValue(ctx, followerKey{}, f), func() {
		once.Do(func() {
			close(f.quit)
			timer := time.NewTimer(stopTimeout)
			defer timer.Stop()
			select {
			case <-ended:
			case <-timer.C:
			}
		})
	}
}

// Say tells the listener something at once, word for word, such as what came of the operation.
func Say(ctx context.Context, text string) {
	if f, ok := ctx.Value(followerKey{}).(*follower); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.tell(State{Said: text, Percent: -1})
	}
}

// tell queues what must be told. The lock is held.
func (f *follower) tell(s State) {
	if len(f.queue) < maxQueue {
		f.queue = append(f.queue, s)
	}
	f.awake()
}

// awake has the loop look what there is to tell.
func (f *follower) awake() {
	select {
	case f.wake <- struct{}{}:
	default: // it is going to
	}
}

// run reports until quit is closed, and then what must be told.
func (f *follower) run() {
	tick, last := time.NewTimer(Interval), time.Time{}
	defer tick.Stop()
	for {
		select {
		case <-f.quit:
			for _, s := range f.take(time.Now(), false) {
				f.report(s)
			}
			return
		case <-f.wake:
			if gap := Gap - time.Since(last); gap > 0 && !f.urgent() {
				tick.Reset(gap)
				continue
			}
		case <-tick.C:
		}
		for _, s := range f.take(time.Now(), true) {
			f.report(s)
		}
		last = time.Now()
		tick.Reset(Interval)
	}
}

// urgent reports whether there is something that must be told.
func (f *follower) urgent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue) > 0
}

// take takes what is to be told now; with current, also which phase the operation is in.
func (f *follower) take(now time.Time, current bool) []State {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := f.queue
	f.queue = nil
	if n := len(f.phases); current && n > 0 {
		states = append(states, f.phases[n-1].state(now))
	} else if current && len(states) == 0 {
		states = append(states, State{Phase: idleness, Percent: -1, Elapsed: now.Sub(f.idle)})
	}
	return states
}

// idleness is what is said between two phases.
const idleness = "at work"

// A Phase is one thing that an operation does.
type Phase struct {
	f     *follower // nil: nobody follows
	name  string
	attrs []any
	start time.Time

	// Guarded by the follower's lock.
	percent int
	measure func() Figures
}

// Enter begins a phase: what is being done, such as "copying the disks", and names and values that go with it, as
// in package log/slog. Phases may be nested, and go on at the same time; the one that began last is told about.
// The phase ends with Leave.
func Enter(ctx context.Context, name string, attrs ...any) (context.Context, *Phase) {
	f, ok := ctx.Value(followerKey{}).(*follower)
	if !ok {
		return ctx, &Phase{}
	}
	p := &Phase{f: f, name: name, attrs: attrs, start: time.Now(), percent: -1}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phases = append(f.phases, p)
	f.awake()
	return context.WithValue(ctx, phaseKey{}, p), p
}

// Measure sets the function that tells how far the phase is. It is called from another goroutine, until Leave has
// returned, and must not block.
func (p *Phase) Measure(figures func() Figures) {
	if p.f == nil {
		return
	}
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.measure = figures
}

// Leave ends the phase. One that was measured, or took longer than Interval, is told about once more. A second call
// does nothing.
func (p *Phase) Leave() {
	if p.f == nil {
		return
	}
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	at := slices.Index(p.f.phases, p)
	if at < 0 {
		return
	}
	p.f.phases = slices.Delete(p.f.phases, at, at+1)
	p.f.idle = time.Now()
	if s := p.state(p.f.idle); s.Measured || s.Elapsed > Interval {
		s.Ended = true
		p.f.tell(s)
	}
}

// Percent says how far the phase of a context is, where nothing but that is known, as of a server's task; below zero:
// it isn't known any more.
func Percent(ctx context.Context, percent int) {
	p, ok := ctx.Value(phaseKey{}).(*Phase)
	if !ok {
		return
	}
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.percent < 0 && percent >= 0 {
		p.f.awake() // a task that says how far it is lasts
	}
	p.percent = min(max(percent, -1), 100)
}

// state is what is to be said of the phase. The lock is held.
func (p *Phase) state(now time.Time) State {
	s := State{Phase: p.name, Attrs: p.attrs, Elapsed: now.Sub(p.start), Percent: p.percent}
	if p.measure != nil {
		s.Figures, s.Measured = p.measure(), true
	}
	if s.Total > 0 {
		s.Percent = int(100 * (float64(min(s.Done, s.Total)) / float64(s.Total)))
	}
	return s
}
