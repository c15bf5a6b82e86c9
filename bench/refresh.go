package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// refresh counts the calls of the vSphere API that one plan makes with so many snapshots in its state.
func refresh(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("refresh")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	raw := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(raw, make([]byte, 1<<20), 0o600); err != nil {
		return err
	}
	options := lab.Options{Dir: filepath.Join(dir, "lab")}
	const vms = 1000
	for i := range vms {
		options.VMs = append(options.VMs, lab.VMSpec{Name: fmt.Sprintf("app%03d", i), Disks: []string{raw}})
	}
	l, err := lab.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	t, err := b.terraform(dir, l, "")
	if err != nil {
		return err
	}
	for _, n := range []int{1, 10, 200, vms} {
		config := fmt.Sprintf(`
resource "vm_snapshot" "all" {
  count = %d
  vm    = format("app%%03d", count.index)
  name  = "snapshot ${count.index}"
}
`, n)
		if _, err := t.apply(ctx, config); err != nil {
			return err
		}
		before := l.Calls()
		u, err := t.run(ctx, "plan", "-detailed-exitcode")
		if err != nil {
			return err
		}
		row := refreshRow{What: fmt.Sprintf("%d snapshots on %d VMs", n, n), Usage: u, Calls: map[string]int{}}
		for method, calls := range l.Calls() {
			if calls -= before[method]; calls > 0 {
				row.Calls[method] = calls
				row.Total += calls
			}
		}
		b.report.Refresh = append(b.report.Refresh, row)
		if n == vms {
			b.report.atMost("refresh of "+row.What, float64(row.Total), 20, "calls")
			b.report.atMost("refresh of "+row.What, u.Seconds, 3, "s")
		}
	}
	return nil
}
