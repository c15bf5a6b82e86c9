package hypervisor

import (
	"context"
	"time"
)

type recentKey struct{}

// Recent returns a context for reads that may be answered with what was true a while ago: maxAge before
// they are asked, at most, but never with what was true before something was changed through the same
// connection. Whoever reads a thousand objects, to see whether any of them has changed, spares the server a
// thousand calls so. Without it, answers are never older than the question.
func Recent(ctx context.Context, maxAge time.Duration) context.Context {
	return context.WithValue(ctx, recentKey{}, maxAge)
}

// MaxAge is how old an answer may be; zero: not older than the question.
func MaxAge(ctx context.Context) time.Duration {
	maxAge, _ := ctx.Value(recentKey{}).(time.Duration)
	return maxAge
}
