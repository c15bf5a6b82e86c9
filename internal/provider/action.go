package provider

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/action/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/action"
	"github.com/hashicorp/terraform-plugin-framework/action/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// An action changes nothing in the state. Terraform keeps nothing of it and never undoes it, so that an action
// that fails, or is interrupted, leaves nothing behind itself; and one that is invoked again, which a person has to do
// who wants it to succeed, does no harm.

// configured is what all actions have in common: they get the session of the provider.
type configured struct{ session *session }

// Configure implements action.ActionWithConfigure.
func (a *configured) Configure(_ context.Context, req action.ConfigureRequest, resp *action.ConfigureResponse) {
	a.session = sessionOf(req.ProviderData, &resp.Diagnostics)
}

// actionTimeouts is the timeouts block of an action.
func actionTimeouts(ctx context.Context, description string) map[string]schema.Block {
	return map[string]schema.Block{"timeouts": timeouts.BlockWithOpts(ctx, timeouts.Opts{InvokeDescription: description})}
}

// invoking gives the context of an action: it ends after the timeout that is written, or after a standard one, and what
// is done in it is followed by whoever invoked the action, and in the log.
//
// Whoever invoked it may go away without taking what is sent to him: so nothing that has to be done may ever wait for
// resp.SendProgress. Only the follower calls it. After an interrupt it sends nothing: the first progress that a
// Terraform gets which was told to stop has it leave the action and end the provider, in the middle of cleaning up
// (internal/terraform/hook_stop.go and node_action_trigger_instance_apply.go of 1.14). Until then it waits.
func (a *configured) invoking(
	ctx context.Context, written timeouts.Value, standard time.Duration, resp *action.InvokeResponse,
) (context.Context, context.CancelFunc) {
	timeout, problems := written.Invoke(ctx, standard)
	resp.Diagnostics.Append(problems...)
	invoked, end := followed(ctx, timeout, func(s progress.State) {
		logProgress(ctx, s)
		if ctx.Err() == nil {
			resp.SendProgress(action.InvokeProgressEvent{Message: s.String()})
		}
	})
	a.session.invoked.Add(1)
	return invoked, sync.OnceFunc(func() {
		end()
		a.session.invoked.Done()
	})
}

// planning gives the context in which an action is planned; false: there is nothing to be checked against.
func (a *configured) planning(ctx context.Context, diags diag.Diagnostics) (context.Context, context.CancelFunc, bool) {
	limited, cancel := limitPlan(ctx)
	return limited, cancel, a.session != nil && !diags.HasError()
}

// actionOn is an operation on a resource as an action carries it out: the one timeout that it has is that of invoke.
func actionOn(o operation) operation {
	o.paths[argTimeout] = path.Root("timeouts").AtName("invoke")
	return o
}
