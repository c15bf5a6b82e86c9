package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// These make this program do something in a repository that has many restore points.
const (
	asMultiply = "BENCH_AS_MULTIPLY"
	asList     = "BENCH_AS_LIST"
	asNewest   = "BENCH_AS_NEWEST"
	asDelete   = "BENCH_AS_DELETE"
)

const (
	manyPoints    = 10_000
	manyVMs       = 100
	sectionPoints = "a repository with 10,000 restore points"
)

// points measures what people wait for in a repository with many restore points.
func points(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("points")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	w := &workshop{b: b, dir: dir, image: filepath.Join(dir, "disk.raw")}
	target := filepath.Join(dir, "repository")
	if err := os.WriteFile(w.image, make([]byte, 1<<20), 0o600); err != nil {
		return err
	}
	if _, err := w.storeIn(ctx, target, "zstd-fastest"); err != nil {
		return err
	}
	if _, err := w.self(ctx, asMultiply, target); err != nil {
		return err
	}
	work := map[string]string{"list all": asList, "find the newest of a VM": asNewest, "delete one": asDelete}
	var contenders []contender
	for _, what := range []string{"list all", "find the newest of a VM", "delete one"} {
		contenders = append(contenders, contender{what, func(ctx context.Context) (outcome, error) {
			u, err := w.self(ctx, work[what], target)
			return outcome{Usage: u}, err
		}})
	}
	if err := b.compete(ctx, sectionPoints, contenders...); err != nil {
		return err
	}
	for _, c := range contenders {
		b.report.atMost(sectionPoints+": "+c.name, b.report.find(sectionPoints, c.name).median(seconds), 3, "s")
	}
	return nil
}

// vmOf names the virtual machine of the n-th restore point.
func vmOf(n int) string { return fmt.Sprintf("vm%d", n%manyVMs) }

// multiply makes many restore points of the one that there is in a repository, by copying its Kopia manifest.
func multiply(ctx context.Context, path string) (err error) {
	storage, err := filesystem.New(ctx, &filesystem.Options{Path: path}, false)
	if err != nil {
		return err
	}
	config := path + ".config"
	if err := repo.Connect(ctx, config, storage, password, nil); err != nil {
		return err
	}
	r, err := repo.Open(ctx, config, password, &repo.Options{DisableRepositoryLog: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	ids, err := snapshot.ListSnapshotManifests(ctx, r, nil, nil)
	if err != nil || len(ids) != 1 {
		return errors.Join(err, fmt.Errorf("%d restore points instead of one", len(ids)))
	}
	first, err := snapshot.LoadSnapshot(ctx, r, ids[0])
	if err != nil {
		return err
	}
	const sessions = 9 // 10,000 is one, and nine times as many
	for n := range sessions {
		err := repo.WriteSession(ctx, r, repo.WriteSessionOptions{Purpose: "benchmark"},
			func(ctx context.Context, w repo.RepositoryWriter) error {
				return copyPoint(ctx, w, first, 1+n*(manyPoints-1)/sessions, 1+(n+1)*(manyPoints-1)/sessions)
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// copyPoint saves copies of a restore point, with numbers from begin up to end.
func copyPoint(ctx context.Context, w repo.RepositoryWriter, first *snapshot.Manifest, begin, end int) error {
	for n := begin; n < end; n++ {
		one := first.Clone()
		one.ID = manifest.ID("")
		one.Source.Path = "/DC0/vm/" + vmOf(n)
		one.Tags["tag:terraform.vm-name"], one.Tags["tag:terraform.vm-path"] = vmOf(n), one.Source.Path
		one.Tags["tag:terraform.created-at"] = time.Now().Add(time.Duration(n) * time.Second).UTC().Format(time.RFC3339Nano)
		if _, err := snapshot.SaveSnapshot(ctx, w, one); err != nil {
			return err
		}
	}
	return nil
}

// withRepository opens a repository for one piece of work.
func withRepository(ctx context.Context, path string, do func(r *repository.Repository) error) error {
	r, err := repository.Open(ctx, repository.Config{Path: path, Password: secret.New(password)})
	if err != nil {
		return err
	}
	return errors.Join(do(r), r.Close(ctx))
}

func listAll(ctx context.Context, path string) error {
	return withRepository(ctx, path, func(r *repository.Repository) error {
		all, err := r.List(ctx, repository.Filter{})
		if err == nil && len(all) < manyPoints-100 { // some were deleted
			err = fmt.Errorf("%d restore points", len(all))
		}
		return err
	})
}

// newest finds the newest restore point of a virtual machine, and opens it.
func newest(ctx context.Context, path string) error {
	return withRepository(ctx, path, func(r *repository.Repository) error {
		all, err := r.List(ctx, repository.Filter{VM: vmOf(7)})
		if err != nil || len(all) == 0 {
			return errors.Join(err, fmt.Errorf("%d restore points", len(all)))
		}
		_, err = r.Get(ctx, all[0].ID)
		return err
	})
}

// deleteOne finds the oldest restore point of a virtual machine, and deletes it.
func deleteOne(ctx context.Context, path string) error {
	return withRepository(ctx, path, func(r *repository.Repository) error {
		all, err := r.List(ctx, repository.Filter{VM: vmOf(9)})
		if err != nil || len(all) == 0 {
			return errors.Join(err, fmt.Errorf("%d restore points", len(all)))
		}
		return r.Delete(ctx, all[len(all)-1].ID)
	})
}
