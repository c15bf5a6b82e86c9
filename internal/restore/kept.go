package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// claim tells disks that nobody knows of but the VM from those that somebody else may know of. The first are what a
// restore replaced that was killed, and those of which the time is over that whoever replaced them wanted to keep them for.
func (p *inPlace) claim(kept []hypervisor.Replaced) {
	own := p.recovered
	p.recovered = nil
	for _, d := range kept {
		killed := slices.ContainsFunc(own, func(o hypervisor.Replaced) bool { return o.Path == d.Path })
		if killed || !d.Until.IsZero() && !p.m.now().Before(d.Until) {
			p.recovered = append(p.recovered, d)
		} else {
			p.foreign = append(p.foreign, d)
		}
	}
}

// keep is for how long the disks are kept that are not deleted now. Those of another restore, whose outcome
// nobody has seen, don't go by what this one asks for alone.
func (p *inPlace) keep() time.Duration {
	if len(p.recovered) > 0 {
		return max(p.InPlace.KeepReplacedDisks, MinimumKeep)
	}
	return p.InPlace.KeepReplacedDisks
}

// until is when disks that are kept for some time may be deleted: not before any of another restore may.
func (p *inPlace) until(result *Result, keep time.Duration) time.Time {
	until := result.CompletedAt.Add(keep)
	for _, d := range p.recovered {
		if d.Until.After(until) {
			until = d.Until
		}
	}
	return until
}

// remembered are the disks that are kept as the VM remembers them. Of a restore that ends with an error, maybe nobody
// is told.
func (p *inPlace) remembered(result *Result, err error) []hypervisor.Replaced {
	until := result.ReplacedUntil
	if err != nil {
		until = p.until(result, max(p.keep(), MinimumKeep))
	}
	disks := slices.Clone(result.Replaced)
	for i := range disks {
		disks[i].Until = until
	}
	return disks
}

// deleteReplaced deletes the disks that this restore replaced.
func (p *inPlace) deleteReplaced(ctx context.Context, result *Result) {
	ctx, phase := progress.Enter(ctx, "deleting the replaced disks", "vm", p.vm.Path)
	defer phase.Leave()
	err := p.restore.Holds(ctx)
	if err == nil {
		err = p.m.hv.DeleteReplaced(ctx, p.vm.ID, p.replaced)
	}
	if err != nil {
		result.Warnings = append(result.Warnings, fmt.Sprintf(
			"%s is restored, but disks that were replaced could not be deleted (%s): %v.",
			p.vm.Path, paths(p.replaced), err))
		return
	}
	result.Replaced = slices.Clone(p.recovered)
}

// paths lists where replaced disks are.
func paths(disks []hypervisor.Replaced) string {
	list := make([]string, len(disks))
	for i, d := range disks {
		list[i] = d.Path
	}
	return strings.Join(list, ", ")
}

// datedPaths lists where replaced disks are, and until when they are kept.
func datedPaths(disks []hypervisor.Replaced) string {
	list := make([]string, len(disks))
	for i, d := range disks {
		if list[i] = d.Path; !d.Until.IsZero() {
			list[i] += " (kept until " + d.Until.Format(time.RFC3339) + ")"
		}
	}
	return strings.Join(list, ", ")
}
