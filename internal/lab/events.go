package lab

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	// maxCollectors is how many collectors of events a session may have, as on a vCenter.
	maxCollectors = 32
	// maxEventPage is how many events one answer has at most, as on a vCenter.
	maxEventPage = 1000
	// defaultEventPage is how many the latest page of a collector has unless told otherwise.
	defaultEventPage = 10
)

// events are the events of virtual machines: what a real server's log has of them. The simulator's own
// log has none of snapshots, and can't be read while another collector ends.
type events struct {
	mu         sync.Mutex
	key        int32
	list       []types.BaseEvent // the oldest first
	collectors map[string]int    // by session
}

// taskNames are the identifiers of tasks in a real server's events, where they aren't the method's.
var taskNames = map[string]string{
	"RevertToSnapshot_Task":        "vm.Snapshot.revert",
	"RevertToCurrentSnapshot_Task": "VirtualMachine.revertToCurrentSnapshot",
	"RemoveSnapshot_Task":          "vm.Snapshot.remove",
	"RemoveAllSnapshots_Task":      "VirtualMachine.removeAllSnapshots",
	"CreateSnapshotEx_Task":        "VirtualMachine.createSnapshot",
	"ReconfigVM_Task":              "VirtualMachine.reconfigure",
	"RelocateVM_Task":              "VirtualMachine.relocate",
}

// noteTask logs the beginning of a task that is about a VM.
func (l *Lab) noteTask(ctx *simulator.Context, j *job) {
	vm, ok := ctx.Map.Get(*j.task.Info.Entity).(*simulator.VirtualMachine)
	if !ok {
		return
	}
	info := clone(j.task.Info)
	if id, ok := taskNames[j.method]; ok {
		info.DescriptionId = id
	}
	l.postEvent(ctx, vm, &types.TaskEvent{Info: info})
}

// postEvent logs an event of a VM.
func (l *Lab) postEvent(ctx *simulator.Context, vm *simulator.VirtualMachine, event types.BaseEvent) {
	l.events.mu.Lock()
	defer l.events.mu.Unlock()
	l.events.key++
	e := event.GetEvent()
	e.Key, e.ChainId, e.CreatedTime = l.events.key, l.events.key, time.Now()
	if ctx.Session != nil {
		e.UserName = ctx.Session.UserName
	}
	e.Vm = &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vm.Name}, Vm: vm.Self}
	l.events.list = append(l.events.list, event)
}

// PostEvent logs an event of a VM, whatever happened.
func (l *Lab) PostEvent(vm string, event types.BaseEvent) {
	ctx := l.background()
	for _, entity := range ctx.Map.All("VirtualMachine") {
		if v, ok := entity.(*simulator.VirtualMachine); ok && v.Name == vm {
			l.postEvent(ctx, v, event)
		}
	}
}

// ForgetEvents empties the log of events, as a server does with what is too old.
func (l *Lab) ForgetEvents() {
	l.events.mu.Lock()
	defer l.events.mu.Unlock()
	l.events.list = nil
}

// find selects events by entity and time.
func (s *events) find(filter types.EventFilterSpec) []types.BaseEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []types.BaseEvent
	for _, event := range s.list {
		e := event.GetEvent()
		if by := filter.Entity; by != nil && by.Entity != e.Vm.Vm && by.Entity.Type != "Folder" {
			continue
		}
		if by := filter.Time; by != nil && (by.BeginTime != nil && e.CreatedTime.Before(*by.BeginTime) ||
			by.EndTime != nil && e.CreatedTime.After(*by.EndTime)) {
			continue
		}
		found = append(found, event)
	}
	return found
}

// An eventManager gives out the lab's events.
type eventManager struct {
	*simulator.EventManager
	lab *Lab
}

// QueryEvents gives the latest events that a filter selects.
func (m *eventManager) QueryEvents(_ *simulator.Context, r *types.QueryEvents) soap.HasFault {
	found := m.lab.events.find(r.Filter)
	found = found[max(len(found)-maxEventPage, 0):]
	slices.Reverse(found)
	return &methods.QueryEventsBody{Res: &types.QueryEventsResponse{Returnval: found}}
}

// CreateCollectorForEvents makes a collector of events.
func (m *eventManager) CreateCollectorForEvents(
	ctx *simulator.Context, r *types.CreateCollectorForEvents,
) soap.HasFault {
	body := new(methods.CreateCollectorForEventsBody)
	s := &m.lab.events
	s.mu.Lock()
	full := s.collectors[ctx.Session.Key] >= maxCollectors
	if !full {
		if s.collectors == nil {
			s.collectors = map[string]int{}
		}
		s.collectors[ctx.Session.Key]++
	}
	s.mu.Unlock()
	switch {
	case full:
		body.Fault_ = simulator.Fault("too many event collectors", &types.InvalidState{})
		return body
	case r.Filter.MaxCount < 0 || r.Filter.MaxCount > maxEventPage:
		body.Fault_ = simulator.Fault("", invalidArgument("filter.maxCount"))
		return body
	}
	c := &eventCollector{lab: m.lab, found: s.find(r.Filter)}
	c.Self = types.ManagedObjectReference{
		Type: "EventHistoryCollector", Value: fmt.Sprintf("session[%s]%s", ctx.Session.Key, uuid.NewString()),
	}
	page := defaultEventPage
	if r.Filter.MaxCount > 0 {
		page = int(r.Filter.MaxCount)
	}
	c.Filter = r.Filter
	c.LatestPage = slices.Clone(c.found[max(len(c.found)-page, 0):])
	slices.Reverse(c.LatestPage)
	ctx.Session.Registry.Put(c)
	body.Res = &types.CreateCollectorForEventsResponse{Returnval: c.Self}
	return body
}

// An eventCollector is a view of the events that there were when it was made. It starts at the oldest.
type eventCollector struct {
	mo.EventHistoryCollector
	lab   *Lab
	found []types.BaseEvent
	next  int
}

// ReadNextEvents reads on towards the newest event.
func (c *eventCollector) ReadNextEvents(_ *simulator.Context, r *types.ReadNextEvents) soap.HasFault {
	body := new(methods.ReadNextEventsBody)
	if r.MaxCount <= 0 || r.MaxCount > maxEventPage {
		body.Fault_ = simulator.Fault("", invalidArgument("maxCount"))
		return body
	}
	end := min(c.next+int(r.MaxCount), len(c.found))
	body.Res = &types.ReadNextEventsResponse{Returnval: c.found[c.next:end]}
	c.next = end
	return body
}

// ReadPreviousEvents reads back towards the oldest event.
func (c *eventCollector) ReadPreviousEvents(_ *simulator.Context, r *types.ReadPreviousEvents) soap.HasFault {
	body := new(methods.ReadPreviousEventsBody)
	if r.MaxCount <= 0 || r.MaxCount > maxEventPage {
		body.Fault_ = simulator.Fault("", invalidArgument("maxCount"))
		return body
	}
	start := max(c.next-int(r.MaxCount), 0)
	page := slices.Clone(c.found[start:c.next])
	slices.Reverse(page)
	c.next = start
	body.Res = &types.ReadPreviousEventsResponse{Returnval: page}
	return body
}

// RewindCollector goes to the oldest event.
func (c *eventCollector) RewindCollector(*simulator.Context, *types.RewindCollector) soap.HasFault {
	c.next = 0
	return &methods.RewindCollectorBody{Res: new(types.RewindCollectorResponse)}
}

// ResetCollector goes behind the newest event.
func (c *eventCollector) ResetCollector(*simulator.Context, *types.ResetCollector) soap.HasFault {
	c.next = len(c.found)
	return &methods.ResetCollectorBody{Res: new(types.ResetCollectorResponse)}
}

// DestroyCollector removes the collector.
func (c *eventCollector) DestroyCollector(ctx *simulator.Context, _ *types.DestroyCollector) soap.HasFault {
	ctx.Session.Remove(ctx, c.Self)
	session, _, _ := strings.Cut(strings.TrimPrefix(c.Self.Value, "session["), "]")
	c.lab.events.mu.Lock()
	defer c.lab.events.mu.Unlock()
	c.lab.events.collectors[session]--
	return &methods.DestroyCollectorBody{Res: new(types.DestroyCollectorResponse)}
}
