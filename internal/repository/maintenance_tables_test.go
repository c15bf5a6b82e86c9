package repository

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// TestTableStreams compares what maintenance takes for used with what Kopia would: for disks of all kinds, and for
// what the kopia command writes, whose chunk tables may have tables of their own.
func TestTableStreams(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	id := backUp(t, r, testManifest(), map[string]disk.Source{
		"one.raw":  &source{capacity: mib, extents: []extent{{0, random(1, 4096)}}},
		"many.raw": &source{capacity: 9*mib + 512, extents: []extent{{0, random(2, 3*mib)}, {7 * mib, random(3, mib)}}},
		"zero.raw": &source{capacity: 5 * mib},
	})
	objects := map[string]object.ID{}
	for _, file := range []string{"one.raw", "many.raw", "many.raw.hashes", "zero.raw", manifestFile} {
		e, err := r.entry(t.Context(), id, file)
		if err != nil {
			t.Fatal(err)
		}
		objects[file] = e.ObjectID
	}
	err := repo.DirectWriteSession(t.Context(), r.rep, writeOptions("test"),
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			ow := w.NewObjectWriter(ctx, object.WriterOptions{Splitter: "FIXED-8M", Compressor: compressor})
			defer ow.Close() //nolint:errcheck // always nil
			if _, err := ow.Write(random(4, 17*mib)); err != nil {
				return err
			}
			var err error
			if objects["of the kopia command"], err = ow.Result(); err != nil {
				return err
			}
			for name, id := range objects {
				want, err := w.VerifyObject(ctx, id)
				if err != nil {
					return err
				}
				got, err := tableStreams{w}.VerifyObject(ctx, id)
				if err != nil || !slices.Equal(unique(got), unique(want)) {
					t.Errorf("%s: got %v and %v, want %v", name, got, err, want)
				}
			}
			missing, err := object.ParseID("Ix" + "00112233445566778899aabbccddeeff")
			if err != nil {
				return err
			}
			if _, err := (tableStreams{w}).VerifyObject(ctx, missing); !errors.Is(err, content.ErrContentNotFound) {
				t.Errorf("an object that isn't there: %v", err)
			}
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
}

func unique(ids []content.ID) []string {
	set := map[string]bool{}
	for _, id := range ids {
		set[id.String()] = true
	}
	return slices.Sorted(maps.Keys(set))
}
