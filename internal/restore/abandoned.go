package restore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
	"github.com/terraform-vm/terraform-provider-vm/internal/run"
)

// abandoned reports whether it is clear at once that nobody is behind a VM in the making any more.
func (m *Manager) abandoned(u hypervisor.Unfinished) bool {
	return m.standing(u.RunID, u.Lease) == dead
}

// mayBeAbandoned reports whether nobody is behind a VM in the making any more as far as can be told at once: of one on
// another machine, the restore itself finds out.
func (m *Manager) mayBeAbandoned(u hypervisor.Unfinished) bool {
	r, err := run.ParseToken(u.RunID)
	if err != nil {
		return false
	}
	alive, known := r.Alive()
	return !known || !alive
}

// cleanUp removes what killed restores left behind: the space and the directory that this one needs may
// be in use by it. What the server doesn't let go yet is waited for only if it is in the way, when the
// VM is created. Where it can't be told at once whether a run goes on, it is watched meanwhile, until j.clean.end.
func (m *Manager) cleanUp(ctx context.Context, j *job) error {
	phased, phase := progress.Enter(ctx, "cleaning up after killed restores")
	defer phase.Leave()
	j.clean = &cleaning{m: m, watched: map[string]*watched{}}
	removed, err := m.hv.CleanUpRestores(phased, func(u hypervisor.Unfinished) bool {
		switch m.standing(u.RunID, u.Lease) {
		case dead:
			return true
		case unknown:
			j.clean.watched[u.RunID] = &watched{Unfinished: u}
		}
		return false
	})
	j.warnings = append(j.warnings, sayRemoved(removed)...)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("clean up after killed restores: %w", err)
	}
	if err != nil { // in nobody's way, or CheckRestore tells of what
		j.warnings = append(j.warnings, fmt.Sprintf("cleaning up after killed restores: %v.", err))
	}
	j.clean.begin(ctx)
	return nil
}

func sayRemoved(names []string) []string {
	warnings := make([]string, len(names))
	for i, name := range names {
		warnings[i] = fmt.Sprintf("removed %q, which a restore left behind that was killed.", name)
	}
	return warnings
}

// A cleaning watches VMs in the making of other machines until it is clear whether somebody is at them, and removes the
// others. It goes on beside the restore, which most of them are in nobody's way of.
type cleaning struct {
	m        *Manager
	watched  map[string]*watched // by run
	warnings []string

	stop context.CancelFunc // nil: there is nothing to watch
	done chan struct{}
}

// A watched VM is one in the making.
type watched struct {
	hypervisor.Unfinished
	silence
	there bool // it was when it was last looked for
}

// begin begins to watch. The caller must call end.
func (c *cleaning) begin(ctx context.Context) {
	if len(c.watched) == 0 {
		return
	}
	for _, w := range c.watched {
		c.m.log.InfoContext(ctx, "a restore was not finished; watching whether its process still lives",
			"vm", w.Name, "process", holder(w.RunID), "at_least", observation)
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		c.watch(ctx)
	}()
}

// watching tells whether there is something to watch, of which end has not told yet.
func (c *cleaning) watching() bool { return c != nil && c.stop != nil }

// end ends watching, if that is worth waiting for when all is clear, and returns what there is to say. Called again, it
// has nothing more to say.
func (c *cleaning) end(ctx context.Context, wait bool) (warnings []string) {
	if !c.watching() {
		return nil
	}
	if !wait {
		c.stop()
	}
	_, phase := progress.Enter(ctx, "watching whether restores of other machines go on")
	<-c.done
	phase.Leave()
	c.stop()
	c.stop = nil
	return c.warnings
}

// watch looks at the leases until it is clear of all VMs whether somebody renews them.
func (c *cleaning) watch(ctx context.Context) {
	var err error
	for len(c.watched) > 0 && err == nil {
		asked := c.m.now()
		if err = c.m.pause(ctx, observeEvery); err != nil {
			break
		}
		for _, w := range c.watched {
			w.there = false
		}
		var removed []string
		removed, err = c.m.hv.CleanUpRestores(ctx, func(u hypervisor.Unfinished) bool {
			w := c.watched[u.RunID]
			if w == nil {
				return false
			}
			if w.there = u.Lease == w.Lease; !w.there { // somebody has renewed it
				return false
			}
			return w.unbroken(c.m, asked, u.Busy)
		})
		c.warnings = append(c.warnings, sayRemoved(removed)...)
		maps.DeleteFunc(c.watched, func(_ string, w *watched) bool {
			return slices.Contains(removed, w.Name) || err == nil && !w.there
		})
	}
	for _, run := range slices.Sorted(maps.Keys(c.watched)) {
		w := c.watched[run]
		c.warnings = append(c.warnings, fmt.Sprintf("%q is a restore that was not finished (%s). Whether it goes on was not "+
			"clear yet: %v. If it doesn't, the next restore or restore test removes it.", w.Name, holder(run), err))
	}
}
