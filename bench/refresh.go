package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// perVM is how many snapshots one VM has in the largest case.
const perVM = 10

// refresh counts the calls of the vSphere API that one plan makes with so many snapshots in its state.
func refresh(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("refresh")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	raw := filepath.Join(dir, "disk.raw")
	if err := makeImage(raw, 64<<20, 1<<20); err != nil {
		return err
	}
	options := lab.Options{Dir: filepath.Join(dir, "lab")}
	for i := range 200 / perVM {
		options.VMs = append(options.VMs, lab.VMSpec{Name: fmt.Sprintf("app%02d", i), Disks: []string{raw}})
	}
	l, err := lab.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	t, err := b.terraform(dir, l)
	if err != nil {
		return err
	}
	for _, n := range []int{1, 10, 200} {
		config := fmt.Sprintf(`
resource "vm_snapshot" "all" {
  count = %d
  vm    = format("app%%02d", floor(count.index / %d))
  name  = "snapshot ${count.index}"
}
`, n, perVM)
		if _, err := t.apply(ctx, l, config); err != nil {
			return err
		}
		before := l.Calls()
		u, err := t.run(ctx, "plan", "-detailed-exitcode")
		if err != nil {
			return err
		}
		row := refreshRow{Snapshots: n, Usage: u, Calls: map[string]int{}}
		for method, calls := range l.Calls() {
			if calls -= before[method]; calls > 0 {
				row.Calls[method] = calls
				row.Total += calls
			}
		}
		b.report.Refresh = append(b.report.Refresh, row)
	}
	return nil
}
