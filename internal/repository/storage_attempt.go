package repository

import (
	"context"
	"fmt"
	"time"
)

const (
	// attemptTimeout is how long a storage service may take to answer at all, and listTimeout to list what there is,
	// which are hundreds of thousands of blobs in a large repository.
	attemptTimeout = 2 * time.Minute
	listTimeout    = 15 * time.Minute

	// slowest is, in bytes per second, below which a transfer counts as stuck.
	slowest = 64 << 10

	// largestBlob is, in bytes, above what packs and indexes come to: Kopia begins a new one at 20 MiB.
	largestBlob = 64 << 20
)

// errNoAnswer: an attempt took too long.
var errNoAnswer = fmt.Errorf("%w: there was no answer", ErrUnreachable)

// timeFor is how long an attempt may take that moves so many bytes.
func (s *remoteStorage) timeFor(size int64) time.Duration {
	return s.answer + time.Duration(size/slowest)*time.Second
}

// attempt tries something once, and doesn't wait for it longer than limit, nor once ctx has ended. The clients of SFTP,
// WebDAV and B2 know nothing of contexts and wait for a server that says nothing for as long as the operating system
// does: they are left alone then. So try may write to nothing that others use. Kopia's client of Azure (v0.23.1) panics where an answer
// lacks what it should have, as one does that comes from something before the service.
func attempt[T any](ctx context.Context, limit time.Duration, try func(ctx context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("%w within %s", errNoAnswer, limit))
	defer cancel()
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() { done <- o }()
		defer func() {
			if r := recover(); r != nil {
				o.err = fmt.Errorf("%w: its client can't do anything with the answer: %v", ErrUnreachable, r)
			}
		}()
		o.value, o.err = try(limited)
	}()
	var none T
	select {
	case o := <-done:
		if o.err != nil && limited.Err() != nil && ctx.Err() == nil {
			return none, context.Cause(limited)
		}
		return o.value, o.err
	case <-limited.Done():
		return none, context.Cause(limited)
	}
}

// attemptOnly is attempt of what has no result.
func attemptOnly(ctx context.Context, limit time.Duration, try func(ctx context.Context) error) error {
	_, err := attempt(ctx, limit, func(ctx context.Context) (struct{}, error) { return struct{}{}, try(ctx) })
	return err
}
