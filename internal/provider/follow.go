package provider

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// logged gives the context of an operation that may take so long. Until it is cancelled, the operation is followed in
// the log: which phase it is in and how far it is, at least every progress.Interval.
func logged(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return followed(ctx, timeout, func(s progress.State) { logProgress(ctx, s) })
}

// followed gives the context of an operation that may take so long, and has it reported until it is cancelled.
func followed(
	ctx context.Context, timeout time.Duration, report func(progress.State),
) (context.Context, context.CancelFunc) {
	ctx, stop := progress.Follow(ctx, report)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	return ctx, func() {
		cancel()
		stop()
	}
}

// logProgress logs how far an operation is.
func logProgress(ctx context.Context, s progress.State) {
	if s.Said != "" {
		tflog.Info(ctx, s.Said)
		return
	}
	fields := map[string]any{"elapsed": s.Elapsed.Round(time.Second).String()}
	for i := 0; i+1 < len(s.Attrs); i += 2 {
		if name, ok := s.Attrs[i].(string); ok {
			fields[name] = s.Attrs[i+1]
		}
	}
	if s.Percent >= 0 {
		fields["percent"] = s.Percent
	}
	if s.Measured {
		fields["done_bytes"], fields["moved_bytes"], fields["mib_per_second"] = s.Done, s.Moved, s.Rate()
	}
	if s.Total > 0 {
		fields["total_bytes"], fields["time_left"] = s.Total, s.Left().String()
	}
	if s.Ended {
		fields["done"] = true
	}
	for name, value := range fields {
		fields[name] = readable(slog.AnyValue(value))
	}
	tflog.Info(ctx, s.Phase, fields)
}
