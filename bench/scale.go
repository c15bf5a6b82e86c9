package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// scaleData is how much data there is on the disks of which the size is what matters.
const scaleData = 2 << 30

// A file of 16 TiB is just more than ext4 takes.
const nearly16TiB = 16<<40 - 1<<20

// tableSeconds is what the chunk table of a large disk may cost, in seconds of processor time: that of a disk of
// 16 TiB has four million entries.
const tableSeconds = 8

const sectionScale = "2 GiB of data on disks of several sizes"

// scale backs up disks of which most is empty, and restores them.
func scale(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("scale")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	sizes := []struct {
		name     string
		capacity int64
		memory   float64
	}{
		{"16 GiB", 16 << 30, 300 << 20},
		{"100 GiB", 100 << 30, 300 << 20},
		{"1 TiB", 1 << 40, 350 << 20},
		{"16 TiB", nearly16TiB, 1 << 30},
	}
	data := min(scaleData, b.data)
	image := filepath.Join(dir, "image.raw")
	if _, err := makeImage(ctx, image, data/4*5&^(1<<20-1), data); err != nil {
		return err
	}
	options := lab.Options{Dir: filepath.Join(dir, "lab")}
	for i, s := range sizes {
		raw := filepath.Join(dir, fmt.Sprintf("disk%d.raw", i))
		if err := spread(image, raw, s.capacity); err != nil {
			return err
		}
		// Change tracking is what tells where there is data.
		options.VMs = append(options.VMs, lab.VMSpec{Name: fmt.Sprintf("vm%d", i), Disks: []string{raw}, ChangeTracking: true})
	}
	l, err := lab.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for i, s := range sizes {
		t, err := (&site{b: b, dir: dir, lab: l}).terraform(s.name, "datastore")
		if err != nil {
			return err
		}
		config := backupConfig(fmt.Sprintf("vm%d", i), 1)
		u, err := t.apply(ctx, config)
		if err != nil {
			return err
		}
		b.report.add(sectionScale, "vm_backup, "+s.name, outcome{Usage: u, Stored: used(filepath.Join(t.dir, "repository"))})
		if u, err = t.apply(ctx, config+restoreConfig); err != nil {
			return err
		}
		b.report.add(sectionScale, "vm_restore, "+s.name, outcome{Usage: u})
		for _, what := range []string{"vm_backup, ", "vm_restore, "} {
			b.report.atMost(sectionScale+": "+what+s.name+", peak memory",
				float64(b.report.find(sectionScale, what+s.name).peak())/(1<<20), s.memory/(1<<20), "MiB")
		}
		if _, err := t.apply(ctx, config); err != nil {
			return err
		}
	}
	for _, s := range sizes[1:] {
		more := b.report.find(sectionScale, "vm_backup, "+s.name).median(cpuSeconds) -
			b.report.find(sectionScale, "vm_backup, "+sizes[0].name).median(cpuSeconds)
		b.report.atMost(sectionScale+": what a chunk table of "+s.name+" costs a backup, CPU seconds", more, tableSeconds, "s")
	}
	return nil
}

// spread copies an image to a larger one, in pieces with holes between them.
func spread(image, path string, capacity int64) error {
	in, err := os.Open(image)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	err = out.Truncate(capacity)
	const piece = 8 << 20
	pieces := info.Size() / piece
	step := capacity / pieces &^ (1<<20 - 1)
	p := make([]byte, piece)
	for i := int64(0); i < pieces && err == nil; i++ {
		if _, err = in.ReadAt(p, i*piece); err == nil {
			_, err = out.WriteAt(p, i*step)
		}
	}
	return errors.Join(err, out.Close())
}

// begin measures what the provider costs before it does anything.
func begin(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("begin")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	l, err := lab.Start(ctx, lab.Options{Dir: filepath.Join(dir, "lab")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	t, err := b.terraform(dir, l, "")
	if err != nil {
		return err
	}
	if err := t.write(""); err != nil {
		return err
	}
	const section, what = "the provider itself", "terraform providers schema"
	err = b.compete(ctx, section, contender{what, func(ctx context.Context) (outcome, error) {
		u, err := t.run(ctx, "providers", "schema", "-json")
		return outcome{Usage: u}, err
	}})
	if err != nil {
		return err
	}
	info, err := os.Stat(b.provider)
	if err != nil {
		return err
	}
	b.report.atMost(what, b.report.find(section, what).median(seconds), 0.3, "s")
	b.report.atMost("size of the stripped program", float64(info.Size())/1e6, 60, "MB")
	return nil
}
