package provider

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"
)

// logHandler passes what the other packages log on to Terraform, which takes the logger from the
// context of each call.
type logHandler struct {
	attrs  []slog.Attr
	prefix string
}

var _ slog.Handler = logHandler{}

// Enabled implements slog.Handler. Terraform's logger filters by itself.
func (h logHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	fields := make(map[string]any, len(h.attrs)+r.NumAttrs())
	for _, a := range h.attrs {
		put(fields, "", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		put(fields, h.prefix, a)
		return true
	})
	switch {
	case r.Level >= slog.LevelError:
		tflog.Error(ctx, r.Message, fields)
	case r.Level >= slog.LevelWarn:
		tflog.Warn(ctx, r.Message, fields)
	case r.Level >= slog.LevelInfo:
		tflog.Info(ctx, r.Message, fields)
	default:
		tflog.Debug(ctx, r.Message, fields)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	all := append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		a.Key = h.prefix + a.Key
		all = append(all, a)
	}
	return logHandler{attrs: all, prefix: h.prefix}
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return logHandler{attrs: h.attrs, prefix: h.prefix + name + "."}
}

// put adds an attribute. Values are resolved, so that a secret stays one.
func put(fields map[string]any, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		fields[prefix+a.Key] = readable(v)
		return
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, inner := range v.Group() {
		put(fields, prefix, inner)
	}
}

// readable is a value as a person reads it in a log. Terraform takes the lines as JSON, and would write a number of
// bytes as 5.24288e+06 and a duration in nanoseconds.
func readable(v slog.Value) any {
	switch v.Kind() {
	case slog.KindInt64:
		return strconv.FormatInt(v.Int64(), 10)
	case slog.KindDuration:
		return v.Duration().Round(time.Millisecond).String()
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339)
	}
	return v.Any()
}
