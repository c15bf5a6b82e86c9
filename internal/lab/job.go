package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// A job is the work of a task. The simulator's own tasks hold their object's lock until they are done,
// so that no second one ever meets them, and can't be cancelled.
type job struct {
	lab    *Lab
	task   *simulator.Task
	method string
	ctx    context.Context // ends when the task is cancelled or the lab is closed
	cancel context.CancelFunc
	sim    *simulator.Context // the job's own, to lock and update objects
	busy   []types.ManagedObjectReference
}

// jobSpec describes a task.
type jobSpec struct {
	method     string // SOAP name, "CreateSnapshot_Task"
	entity     mo.Reference
	name       string // of the entity
	cancelable bool
	// busy are the objects that no second task may change meanwhile.
	busy []types.ManagedObjectReference
}

// work does what a task is for. It looks at job.ctx where it can still stop without a trace.
type work func(*job) (types.AnyType, types.BaseMethodFault)

// startJob starts a task. It fails at once, as a task, when an object is busy.
func (l *Lab) startJob(ctx *simulator.Context, spec jobSpec, do work) types.ManagedObjectReference {
	name := strings.TrimSuffix(spec.method, "_Task")
	name = strings.ToLower(name[:1]) + name[1:]
	task := simulator.CreateTask(spec.entity, name+"Task", nil)
	task.Info.EntityName = spec.name
	task.Info.Cancelable = spec.cancelable
	if ctx.Session != nil {
		task.Info.Reason = &types.TaskReasonUser{UserName: ctx.Session.UserName}
	}
	now := time.Now()
	task.Info.StartTime = &now
	task.Info.State = types.TaskInfoStateRunning

	sim := *ctx
	j := &job{lab: l, task: task, method: spec.method, sim: &sim, busy: spec.busy}
	j.ctx, j.cancel = context.WithCancel(context.Background()) // a task outlives the call that started it
	ctx.Map.Put(task)                                          // gives it its reference
	ctx.WithLock(task, func() { task.Info.Key, task.Info.Task = task.Self.Value, task.Self })
	l.noteTask(ctx, j)
	return l.launch(j, do)
}

func (l *Lab) launch(j *job, do work) types.ManagedObjectReference {
	ref := j.task.Self
	l.mu.Lock()
	l.jobs[ref] = j
	var other *job
	for _, b := range j.busy {
		if other = l.busy[b]; other != nil {
			break
		}
	}
	if other == nil {
		for _, b := range j.busy {
			l.busy[b] = j
		}
	}
	l.mu.Unlock()
	if other != nil {
		running := other.task.Self
		do = func(*job) (types.AnyType, types.BaseMethodFault) {
			return nil, &types.TaskInProgress{Task: running}
		}
		j.busy = nil
	}
	l.spawn(func() { j.run(do) })
	return ref
}

// spawn runs something beside the calls, which Close waits for. Once the lab is closed it does nothing.
func (l *Lab) spawn(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.running.Go(do)
	}
}

func (j *job) run(do work) {
	defer j.cancel()
	result, fault := j.faulty(do)
	j.lab.mu.Lock()
	for _, b := range j.busy {
		delete(j.lab.busy, b)
	}
	delete(j.lab.jobs, j.task.Self)
	j.lab.mu.Unlock()
	j.finish(result, fault)
}

// faulty does the work unless an injected fault stands before it.
func (j *job) faulty(do work) (types.AnyType, types.BaseMethodFault) {
	if f, ok := j.lab.faults.next(j.method, faultTask); ok {
		if f.Delay > 0 { // a task that takes long says how far it is
			j.sim.Map.AtomicUpdate(j.sim, j.task, []types.PropertyChange{{Name: "info.progress", Val: int32(50)}})
		}
		if !j.lab.sleep(j.ctx, f.Delay) {
			return nil, &types.RequestCanceled{}
		}
		if fault := f.method(); fault != nil {
			f.fill(fault, *j.task.Info.Entity, j.task.Self)
			return nil, fault
		}
	}
	if j.lab.faults.isLost(j.method) && !j.lab.sleep(j.ctx, lostWork) || j.ctx.Err() != nil {
		return nil, &types.RequestCanceled{}
	}
	return do(j)
}

func (j *job) finish(result types.AnyType, fault types.BaseMethodFault) {
	changes := []types.PropertyChange{
		{Name: "info.completeTime", Val: time.Now()},
		{Name: "info.state", Val: types.TaskInfoStateSuccess},
		{Name: "info.result", Val: result},
	}
	if fault != nil {
		changes = []types.PropertyChange{
			{Name: "info.completeTime", Val: time.Now()},
			{Name: "info.state", Val: types.TaskInfoStateError},
			{Name: "info.error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultMessage(fault)}},
		}
	}
	j.sim.Map.AtomicUpdate(j.sim, j.task, changes)
}

// faultMessage is a readable name of a fault.
func faultMessage(fault types.BaseMethodFault) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", fault), "*types.")
}

// busyWith is the task that changes an object, nil for none.
func (l *Lab) busyWith(ref types.ManagedObjectReference) *types.ManagedObjectReference {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j := l.busy[ref]; j != nil {
		return &j.task.Self
	}
	return nil
}

// ForgetTasks does to the tasks what becomes of them when a vCenter is restarted: none can be read any more, while
// what the hosts have begun goes on (kubernetes-sigs/vsphere-csi-driver, pull requests 1554 and 2571).
func (l *Lab) ForgetTasks() {
	ctx := l.background()
	for _, object := range ctx.Map.AllReference("Task") {
		task, ok := object.(*simulator.Task)
		if !ok {
			continue
		}
		ctx.Map.Remove(ctx, task.Self)
		l.forgetTask(ctx, task)
	}
}

// CancelTask cancels a task that can be cancelled: it ends with RequestCanceled, unless it was too late.
func (t *taskView) CancelTask(ctx *simulator.Context, _ *types.CancelTask) soap.HasFault {
	body := new(methods.CancelTaskBody)
	t.lab.mu.Lock()
	j := t.lab.jobs[t.Self]
	t.lab.mu.Unlock()
	switch {
	case j == nil:
		body.Fault_ = simulator.Fault("the task has ended", &types.InvalidState{})
	case !t.Info.Cancelable:
		body.Fault_ = simulator.Fault("the task can't be cancelled", &types.NotSupported{})
	default:
		ctx.Update(t.Task, []types.PropertyChange{{Name: "info.cancelled", Val: true}})
		j.cancel()
		body.Res = new(types.CancelTaskResponse)
	}
	return body
}
