package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/kopia/kopia/repo/blob"
)

// A claim is a blob by which a process claims that it alone does something to a repository in a Place, where
// there are no locks. Whoever wants to first writes a claim and then lists all claims, and does it only if there is no
// other. So of two at once, the one who lists last sees the other's: at most one does it, perhaps nobody, who
// then tries again. That holds where a list has what was written before, as all storage services promise by now.
type claim struct {
	storage blob.Storage
	id      blob.ID
}

// takeClaim claims what prefix stands for. Claims of others that are older than age, by the storage's clock, are of
// processes that were killed, and are removed. Error: ErrBusy, if somebody else claims it.
func takeClaim(ctx context.Context, storage blob.Storage, prefix blob.ID, age time.Duration) (*claim, error) {
	c := &claim{storage: storage, id: prefix + blob.ID(uuid.NewString())}
	written, err := c.write(ctx)
	if err != nil {
		c.release(ctx) // it may be there nevertheless
		return nil, err
	}
	var other blob.ID
	var dead []blob.ID
	seen := false
	err = storage.ListBlobs(ctx, prefix, func(b blob.Metadata) error {
		switch {
		case b.BlobID == c.id:
			seen = true
		case b.Timestamp.Before(written.Add(-age)):
			dead = append(dead, b.BlobID)
		default:
			other = b.BlobID
		}
		return nil
	})
	switch {
	case err != nil:
		c.release(ctx)
		return nil, err
	case other != "":
		c.release(ctx)
		return nil, fmt.Errorf("%w: %s", ErrBusy, describeClaim(ctx, storage, other))
	}
	if !seen { // so others who write theirs now may not be listed either
		c.release(ctx)
		return nil, fmt.Errorf("%w: its storage doesn't list what was written to it a moment ago", ErrBusy)
	}
	for _, id := range dead {
		_ = storage.DeleteBlob(ctx, id) // it counts for nobody
	}
	return c, nil
}

// awaitClaim is takeClaim that waits for others for a while.
func awaitClaim(ctx context.Context, storage blob.Storage, prefix blob.ID, age, wait time.Duration) (*claim, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for delay := newBackoff(); ; {
		c, err := takeClaim(ctx, storage, prefix, age)
		if err == nil || !errors.Is(err, ErrBusy) || delay.wait(waiting) != nil {
			return c, err
		}
	}
}

// write writes the claim, or says that it still holds, and returns the time of the storage's clock.
func (c *claim) write(ctx context.Context) (at time.Time, err error) {
	err = c.storage.PutBlob(ctx, c.id, newHolder().bytes(), blob.PutOptions{GetModTime: &at})
	return at, err
}

// claimReleaseTimeout bounds what nobody waits for: a claim that stays counts for nobody once it is old.
const claimReleaseTimeout = time.Minute

func (c *claim) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimReleaseTimeout)
	defer cancel()
	_ = c.storage.DeleteBlob(ctx, c.id)
}

// describeClaim says whose a claim is.
func describeClaim(ctx context.Context, storage blob.Storage, id blob.ID) string {
	var b buffer
	var h holder
	if err := storage.GetBlob(ctx, id, 0, -1, &b); err != nil || json.Unmarshal(b.Bytes(), &h) != nil {
		return "another process claims it with " + string(id)
	}
	return h.String() + " (" + string(id) + ")"
}

const (
	maintainClaim = ownBlobPrefix + "maintain-"

	// maintainClaimAge is when somebody who maintains, and hasn't said so since, is taken for dead. Who maintains
	// says so every claimRenewal, and stops long before others take it for dead if it can't.
	maintainClaimAge = 2 * time.Hour
	claimRenewal     = time.Minute
	claimLost        = 30 * time.Minute
)

var errClaimLost = errors.New("the storage couldn't be told that maintenance goes on")

// leaseMaintenance has the process be the only one that maintains a repository in a Place, until release is called.
// The returned context ends when that can't be relied on any more. Writers know nothing of it: they are safe from
// maintenance by the time that Kopia leaves between its steps.
func (r *Repository) leaseMaintenance(ctx context.Context, wait time.Duration) (_ context.Context, release func(), _ error) {
	mine, err := awaitClaim(ctx, r.storage.Storage, maintainClaim, maintainClaimAge, wait)
	if err != nil {
		return nil, nil, err
	}
	leased, lose := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		mine.keep(leased, claimRenewal, claimLost, lose)
	}()
	return leased, func() {
		lose(nil)
		<-done
		mine.release(ctx)
	}, nil
}

// keep says every interval that the claim holds, until ctx ends. It calls lost when it couldn't for as long as
// patience, also because the machine slept.
func (c *claim) keep(ctx context.Context, interval, patience time.Duration, lost context.CancelCauseFunc) {
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	last := wallClock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		err := context.DeadlineExceeded
		if left := patience - wallClock().Sub(last); left > 0 {
			limited, cancel := context.WithTimeout(ctx, left)
			_, err = c.write(limited)
			cancel()
		}
		switch {
		case err == nil:
			last = wallClock()
		case wallClock().Sub(last) >= patience:
			lost(fmt.Errorf("%w: %w", errClaimLost, err))
			return
		}
	}
}

// wallClock goes on while the machine sleeps, which the clock that Go measures durations by doesn't everywhere.
func wallClock() time.Time { return time.Now().Round(0) }
