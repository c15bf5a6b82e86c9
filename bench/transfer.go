package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

const backupConfig = `
resource "vm_backup" "first" {
  vm         = "web01"
  on_destroy = "delete"
}
`

const againConfig = backupConfig + `
resource "vm_backup" "again" {
  vm         = "web01"
  on_destroy = "delete"
}
`

const restoreConfig = `
resource "vm_restore" "copy" {
  backup_id  = vm_backup.first.id
  on_destroy = "delete"
  new_vm = {
    name     = "restored"
    identity = "copy"
  }
}
`

// transfer backs a VM up and restores it, with the provider and with govc. govc can only export a VM that
// is powered off, so it is for both.
func transfer(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("transfer")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	capacity := b.data / 2 * 5 &^ (1<<20 - 1)
	raw := filepath.Join(dir, "disk.raw")
	if err := makeImage(raw, capacity, b.data); err != nil {
		return err
	}
	l, err := lab.Start(ctx, lab.Options{Dir: filepath.Join(dir, "lab"), VMs: []lab.VMSpec{{Name: "web01", Disks: []string{raw}, PoweredOff: true}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	t, err := b.terraform(dir, l)
	if err != nil {
		return err
	}
	section := fmt.Sprintf("disk of %s with %s of data", size(capacity), size(b.data))
	note := func(what string, u usage, err error, stored int64) error {
		if err == nil {
			b.report.add(transferRow{section, what, u, stored})
		}
		return err
	}
	if err := readAll(raw); err != nil { // nobody is the first to read it from the disk
		return err
	}
	u, err := t.apply(ctx, l, backupConfig)
	if err := note("vm_backup", u, err, used(filepath.Join(dir, "repository"))); err != nil {
		return err
	}
	exported := filepath.Join(dir, "exported")
	u, err = govc(ctx, l, filepath.Join(dir, "govmomi"), "export.ovf", "-vm", "web01", exported)
	if err := note("govc export.ovf", u, err, used(exported)); err != nil {
		return err
	}
	u, err = t.apply(ctx, l, backupConfig+restoreConfig)
	if err := note("vm_restore", u, err, 0); err != nil {
		return err
	}
	u, err = govc(ctx, l, filepath.Join(dir, "govmomi"), "import.ovf", "-name", "imported", "-pool", "DC0_C0/Resources", "-ds", "LocalDS_0",
		filepath.Join(exported, "web01", "web01.ovf"))
	if err := note("govc import.ovf", u, err, 0); err != nil {
		return err
	}
	for _, vm := range []string{"restored", "imported"} {
		if err := compare(l, vm, raw); err != nil {
			return err
		}
	}
	before := used(filepath.Join(dir, "repository"))
	u, err = t.apply(ctx, l, againConfig+restoreConfig)
	return note("vm_backup, nothing changed", u, err, used(filepath.Join(dir, "repository"))-before)
}

const sparseData = 1 << 30

// sparse backs a disk of 1 TiB up that is nearly empty, and restores it.
func sparse(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("sparse")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	raw := filepath.Join(dir, "disk.raw")
	if err := makeImage(raw, 1<<40, sparseData); err != nil {
		return err
	}
	l, err := lab.Start(ctx, lab.Options{Dir: filepath.Join(dir, "lab"), VMs: []lab.VMSpec{{Name: "web01", Disks: []string{raw}}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	t, err := b.terraform(dir, l)
	if err != nil {
		return err
	}
	const section = "disk of 1 TiB with 1 GiB of data"
	u, err := t.apply(ctx, l, backupConfig)
	if err != nil {
		return err
	}
	b.report.add(transferRow{section, "vm_backup", u, used(filepath.Join(dir, "repository"))})
	if u, err = t.apply(ctx, l, backupConfig+restoreConfig); err != nil {
		return err
	}
	b.report.add(transferRow{section, "vm_restore", u, 0})
	return nil
}

// readAll reads a file to its end.
func readAll(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, file)
	return errors.Join(err, file.Close())
}

// compare compares the disk of a VM with an image.
func compare(l *lab.Lab, vm, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	want, got := make([]byte, 8<<20), make([]byte, 8<<20)
	for offset := int64(0); ; {
		n, err := file.ReadAt(want, offset)
		if n > 0 {
			if err := l.ReadDisk(vm, 0, offset, got[:n]); err != nil {
				return err
			}
			if !bytes.Equal(got[:n], want[:n]) {
				return fmt.Errorf("%s differs from the image within the 8 MiB at %d", vm, offset)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		offset += int64(n)
	}
}

// used is the size of all files below a directory.
func used(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil // what is gone in the meantime takes no space
	})
	return total
}
