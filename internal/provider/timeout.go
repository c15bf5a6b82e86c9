package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/diag"
)

// limit gives a context that ends after the timeout of one operation, such as timeouts.Value.Read, or after a
// standard one where none is written. Until it is cancelled, the operation is followed in the log.
func limit(
	ctx context.Context, written timeouts.Value,
	of func(timeouts.Value, context.Context, time.Duration) (time.Duration, diag.Diagnostics),
	standard time.Duration, diags *diag.Diagnostics,
) (context.Context, context.CancelFunc) {
	timeout, problems := of(written, ctx, standard)
	diags.Append(problems...)
	return logged(ctx, timeout)
}

// planTimeout limits what a plan may ask of the server for one resource.
const planTimeout = 5 * time.Minute

// limitPlan is limit for what is read, as a rule while a plan is made.
func limitPlan(ctx context.Context) (context.Context, context.CancelFunc) {
	return logged(ctx, planTimeout)
}

// refreshAge is how old what a refresh reads may be. Terraform asks for a thousand resources one after the other, ten at
// a time, for longer than ten seconds on a busy machine: with less, the whole inventory is read again in the middle.
const refreshAge = 30 * time.Second
