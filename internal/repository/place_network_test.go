package repository

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
)

// networkSource is a disk of which a backup takes some packets.
func networkSource(seed uint64) *source {
	return &source{capacity: 2 * mib, extents: []extent{{0, random(seed, mib)}, {mib, random(seed+1, 4096)}}}
}

// A cut is when a network fails in the course of a backup, and whether it heals.
type cut struct {
	sent  int64 // after how many bytes
	heals bool
}

// cuts are at the beginning of a backup, before and in Commit, and at its end.
func cuts(t *testing.T, c Config, network *storagetest.Proxy) []cut {
	t.Helper()
	r := open(t, c)
	backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": networkSource(1)})
	network.CutAfter(math.MaxInt64)
	w := newWriter(t, r)
	m := testManifest()
	writeDisk(t, w, m, "disk.raw", networkSource(2))
	before := network.Sent()
	if _, err := w.Commit(t.Context(), m, testFiles); err != nil {
		t.Fatal(err)
	}
	after := network.Sent()
	middle := before + (after-before)/2
	return []cut{{1, false}, {before / 2, true}, {before - 1, false}, {middle, true}, {middle, false}, {after - 1, false}}
}

// TestNetworkCut cuts the network in the middle of backups. If it heals, the backup goes on. If it doesn't, the backup
// fails, and the repository is as it was before; or the backup is there, with its outcome unknown.
func TestNetworkCut(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, connect server) {
		c, network := connect(t, "measured")
		var all sync.WaitGroup // at the same time: they wait for most of it
		for _, at := range cuts(t, c, network) {
			all.Go(func() {
				t.Run(fmt.Sprintf("after %d bytes, heals %t", at.sent, at.heals), func(t *testing.T) {
					// A backup can send some requests less than the one that was measured, and be done before the cut.
					for range 10 {
						c, network := connect(t, fmt.Sprintf("cut-%d-%t", at.sent, at.heals))
						if !at.heals {
							c.MaxOutage = -1
						}
						if cutNetwork(t, c, network, at) {
							return
						}
						at.sent -= 4096
					}
					t.Fatal("the network was never cut")
				})
			})
		}
		all.Wait()
	}, "s3", "sftp", "webdav")
}

// cutNetwork reports whether the backup got as far as the cut.
func cutNetwork(t *testing.T, c Config, network *storagetest.Proxy, at cut) bool {
	t.Helper()
	r := open(t, c)
	want := map[ID]uint64{backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": networkSource(1)}): 1}
	hit := network.CutAfter(at.sent)
	if at.heals {
		go func() {
			network.AwaitRefusal(t.Context(), 2)
			network.Heal()
		}()
	}
	src := networkSource(2)
	id, _, err := tryBackUp(t, r, src.capacity, func(w *Writer) (DiskResult, error) {
		return w.WriteDisk(t.Context(), "disk.raw", src)
	})
	switch {
	case err == nil:
		want[id] = 2
	case at.heals:
		t.Errorf("the network healed: %v", err)
	case !errors.Is(err, ErrUnreachable):
		t.Errorf("the network was cut: %v", err)
	}
	wasCut := hit()
	network.Heal()

	fresh := open(t, c)
	if errors.Is(err, ErrUncertain) {
		points, listErr := fresh.List(t.Context(), Filter{})
		if listErr != nil {
			t.Fatal(listErr)
		}
		for _, p := range points {
			if _, ok := want[p.ID]; !ok {
				want[p.ID] = 2
			}
		}
	}
	want[backUp(t, fresh, testManifest(), map[string]disk.Source{"disk.raw": networkSource(2)})] = 2
	points, err := fresh.List(t.Context(), Filter{})
	if err != nil || len(points) != len(want) {
		t.Errorf("listed %v, %v, want %v", points, err, want)
	}
	for id, seed := range want {
		if b := readDisk(t, fresh, id, firstDisk(t, fresh, id)); !bytes.Equal(b, networkSource(seed).bytes()) {
			t.Errorf("the disk of restore point %s differs", id)
		}
	}
	return wasCut
}
