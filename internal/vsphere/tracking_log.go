package vsphere

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// A logPosition is the newest event of a VM at some moment. A server's log that still has it is complete
// from there on: logs lose what is oldest.
type logPosition struct {
	Key int32     `json:"key"`
	At  time.Time `json:"at"` // by the server's clock
}

// errNoEvents: the server has no events of the VM to go by.
var errNoEvents = errors.New("the server lists no events of the virtual machine")

const (
	// eventPage is how many events are read at a time; a vCenter allows 1000.
	eventPage = 1000
	// maxEvents is how many events of a VM are looked at before it is given up.
	maxEvents = 100 * eventPage
	// collectorCleanup bounds the removal of a collector. A session may have 32 of them.
	collectorCleanup = 30 * time.Second
)

// logPosition reads the newest event of a VM. The call of a task is an event, so that a VM of which a
// snapshot was just taken has one.
func (c *Client) logPosition(ctx context.Context, vm types.ManagedObjectReference) (logPosition, error) {
	var newest logPosition
	err := c.collectEvents(ctx, vm, nil, func(collector types.ManagedObjectReference) error {
		var page mo.EventHistoryCollector
		if err := c.properties(ctx, collector, []string{"latestPage"}, &page); err != nil {
			return err
		}
		for _, e := range page.LatestPage {
			event := e.GetEvent()
			if event.CreatedTime.After(newest.At) || event.CreatedTime.Equal(newest.At) && event.Key > newest.Key {
				newest = logPosition{Key: event.Key, At: event.CreatedTime}
			}
		}
		return nil
	})
	if err == nil && newest.Key == 0 {
		err = errNoEvents
	}
	if err != nil {
		return logPosition{}, fmt.Errorf("read the events of %s: %w", vm.Value, err)
	}
	return newest, nil
}

// eventsSince calls look for every event of a VM after a position, in no particular order. complete is
// false when the log doesn't reach back to the position.
func (c *Client) eventsSince(
	ctx context.Context, vm types.ManagedObjectReference, since logPosition, look func(types.BaseEvent),
) (complete bool, err error) {
	begin := since.At.Add(-time.Minute)
	err = c.collectEvents(ctx, vm, &begin, func(collector types.ManagedObjectReference) error {
		for seen := 0; ; {
			res, err := methods.ReadNextEvents(ctx, c.vim, &types.ReadNextEvents{This: collector, MaxCount: eventPage})
			if err != nil {
				return classify(err)
			}
			if len(res.Returnval) == 0 {
				return nil
			}
			if seen += len(res.Returnval); seen > maxEvents {
				return fmt.Errorf("there are more than %d", maxEvents)
			}
			for _, e := range res.Returnval {
				event := e.GetEvent()
				if event.Key == since.Key && event.CreatedTime.Equal(since.At) {
					complete = true
				}
				// Keys begin anew some day; clocks are set back.
				if event.Key > since.Key || event.CreatedTime.After(since.At) {
					look(e)
				}
			}
		}
	})
	if err != nil {
		return false, fmt.Errorf("read the events of %s: %w", vm.Value, err)
	}
	return complete, nil
}

// collectEvents makes a collector of the events of a VM, from a time on, for as long as do runs.
func (c *Client) collectEvents(
	ctx context.Context, vm types.ManagedObjectReference, begin *time.Time,
	do func(collector types.ManagedObjectReference) error,
) error {
	manager := c.vim.ServiceContent.EventManager
	if manager == nil {
		return errNoEvents
	}
	filter := types.EventFilterSpec{
		Entity:             &types.EventFilterSpecByEntity{Entity: vm, Recursion: types.EventFilterSpecRecursionOptionSelf},
		DisableFullMessage: types.NewBool(true),
	}
	if begin != nil {
		filter.Time = &types.EventFilterSpecByTime{BeginTime: begin}
	}
	res, err := methods.CreateCollectorForEvents(ctx, c.vim, &types.CreateCollectorForEvents{This: *manager, Filter: filter})
	if err != nil {
		return classify(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), collectorCleanup)
		defer cancel()
		if _, err := methods.DestroyCollector(ctx, c.vim, &types.DestroyCollector{This: res.Returnval}); err != nil {
			c.log.DebugContext(ctx, "destroy a collector of events", "error", withoutURL(err))
		}
	}()
	return do(res.Returnval)
}

// removes reports whether a task removes snapshots of a VM, or consolidates its disks.
func removes(t *types.TaskInfo) bool {
	name := strings.ToLower(t.Name + " " + t.DescriptionId)
	return strings.Contains(name, "remove") && strings.Contains(name, "snapshot") || strings.Contains(name, "consolidat")
}

// disturbs says in a sentence what an event means for a disk that is just being read from its datastore.
// Empty: nothing. As long as the temporary snapshot is there nobody writes to what it has frozen, whatever
// becomes of other snapshots and of the running virtual machine: only a move matters.
func disturbs(event types.BaseEvent) string {
	moved := false
	switch e := event.(type) {
	case *types.VmRelocatedEvent:
		moved = true
	case *types.VmMigratedEvent:
		moved = otherDatastore(e)
	case *types.DrsVmMigratedEvent:
		moved = otherDatastore(&e.VmMigratedEvent)
	}
	if !moved {
		return ""
	}
	return fmt.Sprintf("The virtual machine's disks were moved on %s.", event.GetEvent().CreatedTime.UTC().Format(time.RFC3339))
}

// otherDatastore reports whether a migration was one of the disks, too.
func otherDatastore(e *types.VmMigratedEvent) bool {
	return e.SourceDatastore != nil && e.Ds != nil && e.SourceDatastore.Datastore != e.Ds.Datastore
}

// unsettles says in a sentence what an event means for the incremental reading of a VM's disks. Empty:
// nothing. It errs on the side of caution: what isn't understood but speaks of a revert is one.
func unsettles(event types.BaseEvent) string {
	if moved := disturbs(event); moved != "" {
		return moved
	}
	at := event.GetEvent().CreatedTime.UTC().Format(time.RFC3339)
	reverted := func(names ...string) bool {
		return strings.Contains(strings.ToLower(strings.Join(names, " ")), "revert")
	}
	failed := false // the virtual machine or its host, so that the last writes may not have been noted
	names := []string{reflect.Indirect(reflect.ValueOf(event)).Type().Name()}
	switch e := event.(type) {
	case *types.TaskEvent:
		names = append(names, e.Info.Name, e.Info.DescriptionId)
	case *types.EventEx:
		names = append(names, e.EventTypeId)
		id := strings.ToLower(e.EventTypeId)
		failed = strings.Contains(id, ".ha.") && (strings.Contains(id, "restart") || strings.Contains(id, "reset"))
	case *types.VmRestartedOnAlternateHostEvent, *types.VmDasBeingResetEvent, *types.VmDasBeingResetWithScreenshotEvent:
		failed = true
	case *types.ExtendedEvent:
		names = append(names, e.EventTypeId)
	case *types.VmReconfiguredEvent:
		if on := e.ConfigSpec.ChangeTrackingEnabled; on != nil && !*on {
			return fmt.Sprintf("Change tracking was switched off on %s.", at)
		}
	}
	if failed {
		return fmt.Sprintf("High availability restarted the virtual machine after a failure on %s.", at)
	}
	if reverted(names...) {
		return fmt.Sprintf("The virtual machine was reverted to a snapshot on %s.", at)
	}
	return ""
}
