package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// logged has an operation followed in the log: which phase it is in and how far it is, at least every
// progress.Interval.
func logged(ctx context.Context) (followed context.Context, stop func()) {
	return progress.Follow(ctx, func(s progress.State) { logProgress(ctx, s) })
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
	tflog.Info(ctx, s.Phase, fields)
}
