package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"golang.org/x/sync/errgroup"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
)

// A farPlace takes packs only once so many are on their way as may be.
type farPlace struct {
	Place
	blob.Storage

	mu      sync.Mutex
	now     int
	most    int
	enough  chan struct{} // closed once there were maxUploads at once
	patient time.Duration
}

func (p *farPlace) String() string                                { return "far://" }
func (p *farPlace) connect(context.Context) (blob.Storage, error) { return p, nil }
func (p *farPlace) lock() *ObjectLock                             { return nil }
func (p *farPlace) around() []Place                               { return nil }

func (p *farPlace) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	worker := ctx.Value(leaveKey{}) != nil // others don't wait for a token
	if id[0] != 'p' || data.Length() < 16*mib || !worker {
		return p.Storage.PutBlob(ctx, id, data, o)
	}
	p.add(1)
	defer p.add(-1)
	select {
	case <-p.enough:
	case <-time.After(p.patient):
		return errors.New("others wait for this one")
	}
	return p.Storage.PutBlob(ctx, id, data, o)
}

func (p *farPlace) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now += n
	if p.now > p.most {
		if p.most = p.now; p.most == maxUploads {
			close(p.enough)
		}
	}
}

func init() { children["uploads"] = backUpFar }

// backUpFar backs up three disks of several packs each to a place that is far away.
func backUpFar(ctx context.Context, path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	base, err := filesystem.New(ctx, &filesystem.Options{Path: path}, true)
	if err != nil {
		return err
	}
	place := &farPlace{Storage: base, enough: make(chan struct{}), patient: time.Minute}
	c := placeConfig(place)
	c.MaxOutage = -1
	r, err := Open(ctx, c)
	if err != nil {
		return err
	}
	w, err := r.NewWriter(ctx)
	if err != nil {
		return err
	}
	var all errgroup.Group
	for n := range 3 {
		all.Go(func() error {
			src := &madeSource{chunks: 90, seed: uint64(n)}
			_, err := w.WriteDisk(ctx, fmt.Sprint(n), src)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	if place.most != maxUploads {
		return fmt.Errorf("%d packs were uploaded at once, and not %d", place.most, maxUploads)
	}
	return errors.Join(printPeak(), w.Close(ctx), r.Close(ctx))
}

// A madeSource is a disk of chunks that are made when they are read.
type madeSource struct {
	chunks int64
	seed   uint64
}

func (s *madeSource) Capacity() int64 { return s.chunks * mib }

func (s *madeSource) Extents(_ context.Context, yield func(int64, []byte) error) error {
	data := random(s.seed, mib)
	for n := range s.chunks {
		data[n]++
		if err := yield(n*mib, data); err != nil {
			return err
		}
	}
	return nil
}

var _ disk.Source = (*madeSource)(nil)

// TestUploads uploads more packs at once than workers make, and no more than fit into memory.
func TestUploads(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads peak memory from /proc")
	}
	if raceDetector {
		t.Skip("the race detector takes several times the memory")
	}
	wantPeak(t, "uploads", 500)
}

// BenchmarkWriteFar writes to an S3 server of which a connection takes a window of 1 MiB every 100 ms.
func BenchmarkWriteFar(b *testing.B) {
	server := storagetest.NewS3(b, false)
	network := server.Network(b)
	network.Delay(100*time.Millisecond, mib)
	n := 0
	b.SetBytes(256 * mib)
	for b.Loop() {
		b.StopTimer()
		n++
		r, err := Open(b.Context(), placeConfig(s3PlaceAt(network.URL(), fmt.Sprint("far-", n))))
		if err != nil {
			b.Fatal(err)
		}
		w, err := r.NewWriter(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := w.WriteDisk(b.Context(), "disk.raw", &madeSource{chunks: 256, seed: uint64(n)}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := errors.Join(w.Close(b.Context()), r.Close(b.Context())); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
