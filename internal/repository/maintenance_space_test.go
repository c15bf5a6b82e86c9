package repository

import (
	"context"
	"errors"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// What restore points share counts only when all of them go.
func TestSpaceOf(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	shared := extent{0, random(1, 4*mib)}
	var ids []ID
	for seed := range uint64(3) {
		ids = append(ids, backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": &source{
			capacity: 16 * mib, extents: []extent{shared, {8 * mib, random(10+seed, 2*mib)}},
		}}))
	}
	for _, test := range []struct {
		ids  []ID
		want int64 // of the disks; the rest is small
	}{
		{nil, 0}, {ids[:1], 2 * mib}, {ids[:2], 4 * mib}, {ids, 10 * mib},
	} {
		got, err := r.SpaceOf(t.Context(), test.ids)
		if err != nil || got < test.want || got > test.want+mib/2 || len(test.ids) == 0 && got != 0 {
			t.Errorf("%d of them take %d bytes, %v; want %d", len(test.ids), got, err, test.want)
		}
	}
	if _, err := r.SpaceOf(t.Context(), []ID{"00000000000000000000000000000000"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("of one that is gone: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.SpaceOf(cancelled, ids); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
