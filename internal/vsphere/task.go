package vsphere

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// cancelTimeout is how long a cancelled task may take to come to its end. Removing a snapshot can't be
// cancelled once it commits, so this is an upper limit on how long a cancelled caller is kept.
const cancelTimeout = 2 * time.Minute

// questionTimeout is the same for a task that waits for a person's answer. It ends with the answer, which
// may never come.
const questionTimeout = 3 * time.Second

// waitTask waits for the end of a task.
//
// When the task fails, the error is the task's fault, classified (see classify). When ctx ends first, the
// task is cancelled if it can be, and waited for on a deadline of its own; the error then wraps
// ctx.Err(). When the task can't be watched to its end, as a vCenter that is restarted forgets its tasks while
// the hosts carry them out, the error wraps errUnknownEnd. In every case the TaskInfo that is returned, unless it
// is nil, says how the task ended, so that a caller can tell that something was done after all: check info.State
// and info.Result.
func (c *Client) waitTask(ctx context.Context, t *object.Task) (*types.TaskInfo, error) {
	began := time.Now()
	info, err := c.watchTask(ctx, t.Reference())
	if err == nil {
		c.log.DebugContext(ctx, "task ended", "task", t.Reference().Value, "operation", info.DescriptionId, "on", info.EntityName,
			"state", string(info.State), "duration", time.Since(began).Round(time.Millisecond).String())
		return info, taskError(info)
	}
	if ctx.Err() == nil {
		return info, fmt.Errorf("wait for %s: %w: %w", t.Reference().Value, errUnknownEnd, err)
	}
	limit := cancelTimeout
	var question *questionError
	if errors.As(context.Cause(ctx), &question) {
		limit = questionTimeout
	}
	info, late := c.cancelTask(context.WithoutCancel(ctx), t.Reference(), limit)
	switch {
	case late != nil:
		return info, fmt.Errorf("%s: %w; how it ended is not known: %w", t.Reference().Value, ctx.Err(), late)
	case info.State == types.TaskInfoStateSuccess:
		return info, fmt.Errorf("%s: %w; the task was done before it could be cancelled", t.Reference().Value, ctx.Err())
	}
	return info, fmt.Errorf("%s: %w; the task was cancelled", t.Reference().Value, ctx.Err())
}

// cancelTask asks the server to cancel a task, and waits for its end, but not longer than limit.
func (c *Client) cancelTask(
	ctx context.Context, ref types.ManagedObjectReference, limit time.Duration,
) (*types.TaskInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := methods.CancelTask(ctx, c.vim, &types.CancelTask{This: ref})
	// NotSupported: it can't be cancelled. InvalidState: it has ended by itself.
	if err != nil && !fault.Is(err, &types.NotSupported{}) && !fault.Is(err, &types.InvalidState{}) {
		c.log.WarnContext(ctx, "cancel a task", "task", ref.Value, "error", withoutURL(err))
	}
	return c.watchTask(ctx, ref)
}

// watchTask waits until a task has ended, however it ended.
func (c *Client) watchTask(ctx context.Context, ref types.ManagedObjectReference) (*types.TaskInfo, error) {
	var info types.TaskInfo
	err := c.watcher.watch(ctx, ref, []string{"info"}, func(name string, value any) bool {
		if i, ok := value.(types.TaskInfo); ok && name == "info" {
			info = i
			if i.Progress > 0 {
				progress.Percent(ctx, int(i.Progress))
			}
		}
		return info.State == types.TaskInfoStateSuccess || info.State == types.TaskInfoStateError
	})
	progress.Percent(ctx, -1)
	c.overview.changes.Add(1) // whatever it did, what was read before it ended is out of date
	if err != nil {
		return nil, err
	}
	return &info, nil
}

// taskInfo reads a task as it is now; nil: the server has forgotten it, as it does some time after its end. That a
// task can't be read otherwise doesn't mean that it is over.
func (c *Client) taskInfo(ctx context.Context, ref types.ManagedObjectReference) (*types.TaskInfo, error) {
	var t mo.Task
	err := c.properties(ctx, ref, []string{"info"}, &t)
	switch {
	case err == nil:
		return &t.Info, nil
	case objectGone(err, ref):
		return nil, nil
	}
	return nil, err
}

// taskError returns the error of a task that has ended, nil if it succeeded.
func taskError(info *types.TaskInfo) error {
	if info.State != types.TaskInfoStateError {
		return nil
	}
	if info.Error == nil {
		return fmt.Errorf("%s failed without giving a reason", info.Task.Value)
	}
	return fmt.Errorf("%s: %w", info.Task.Value,
		classify(task.Error{LocalizedMethodFault: info.Error, Description: info.Description}))
}

// startTimeout is how long the call that starts a task may take. It doesn't end with the caller's
// context, so that there is always an answer to the question what was started.
const startTimeout = 30 * time.Second

// runTask starts a task and waits for its end, as waitTask does. While somebody else's task keeps the
// object busy (TaskInProgress), it waits for that one and tries again until ctx ends. A failure of start
// that leaves open whether there is a task (see isAmbiguous) comes back unclassified, with no TaskInfo. With no
// TaskInfo and an error that is ambiguous comes back, too, a task of which it isn't known how it ended.
func (c *Client) runTask(
	ctx context.Context, start func(ctx context.Context) (*object.Task, error),
) (*types.TaskInfo, error) {
	for attempt := 1; ; attempt++ {
		info, err := c.tryTask(ctx, start)
		if err == nil || ctx.Err() != nil {
			return info, err
		}
		busy, ok := inProgress(err)
		if !ok {
			return info, err
		}
		if err := c.waitForOther(ctx, busy, attempt); err != nil {
			return nil, fmt.Errorf("wait for another task on the object, %s: %w", busy.Value, err)
		}
	}
}

func (c *Client) tryTask(
	ctx context.Context, start func(ctx context.Context) (*object.Task, error),
) (*types.TaskInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	startCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	t, err := start(startCtx)
	if err != nil {
		if isAmbiguous(err) {
			return nil, err
		}
		return nil, c.named(classify(err))
	}
	return c.waitTask(ctx, t)
}

// inProgress returns the task that keeps an object busy, if that is what err says.
func inProgress(err error) (types.ManagedObjectReference, bool) {
	var busy *types.TaskInProgress
	if _, ok := fault.As(err, &busy); ok {
		return busy.Task, true
	}
	var app *types.VAppTaskInProgress
	if _, ok := fault.As(err, &app); ok {
		return app.Task, true
	}
	return types.ManagedObjectReference{}, false
}

// waitForOther waits until somebody else's task has ended, and then a moment, growing with attempt: the
// server may still be tidying up, and others may be waiting too. The only error is ctx.Err().
func (c *Client) waitForOther(ctx context.Context, busy types.ManagedObjectReference, attempt int) error {
	if busy.Value != "" {
		ctx, phase := progress.Enter(ctx, "waiting for another task on the virtual machine", "task", busy.Value)
		defer phase.Leave()
		if _, err := c.watchTask(ctx, busy); err != nil && ctx.Err() == nil {
			c.log.DebugContext(ctx, "watch the task of others", "task", busy.Value, "error", withoutURL(err))
		}
	}
	return pause(ctx, backoff(attempt))
}
