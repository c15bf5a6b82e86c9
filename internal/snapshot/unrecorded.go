package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// uniqueSuffix is what UniqueName adds: the time, and 32 random bits.
var uniqueSuffix = regexp.MustCompile(`^-\d{8}T\d{6}Z-[0-9a-f]{8}$`)

// UniqueSuffixLen is the length of what UniqueName adds, in bytes.
const UniqueSuffixLen = len("-20060102T150405Z-") + 8

// UniqueName makes a name that no other snapshot has: what it is for, when it was taken (UTC), and a random
// suffix, for two at the same second. Names sort by time.
func UniqueName(purpose string, now time.Time) string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	return fmt.Sprintf("%s-%s-%x", purpose, now.UTC().Format("20060102T150405Z"), random)
}

// MadeFor reports whether UniqueName made a name for a purpose.
func MadeFor(name, purpose string) bool {
	suffix, ok := strings.CutPrefix(name, purpose)
	return ok && uniqueSuffix.MatchString(suffix)
}

// TakeOrNothing is Take for a caller that can't record what exists after an error: a snapshot that comes with an error,
// because the caller's context ended or the VM could not be started again, is removed.
//
// It returns a Taken together with an error only if that snapshot could not be removed.
func (m *Manager) TakeOrNothing(ctx context.Context, r Request) (*Taken, error) {
	r.orNothing = true
	taken, err := m.Take(ctx, r)
	if err == nil || taken == nil {
		return taken, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	removeErr := m.Remove(ctx, taken.VM.InstanceUUID, taken.Snapshot.ID, hypervisor.RemoveOptions{})
	switch {
	case removeErr == nil:
		return nil, err
	case errors.Is(removeErr, hypervisor.ErrConsolidationNeeded):
		return nil, errors.Join(err, removeErr)
	}
	return taken, errors.Join(err, fmt.Errorf("remove it again: %w", removeErr))
}
