package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

const (
	sectionFull        = "full backup of a VM"
	sectionIncremental = "backup after 1 % of the data changed"
	sectionRestore     = "restore of a VM"

	withDatastore = "vm_backup, datastore"
	withExport    = "vm_backup, export"
	govcExport    = "govc export.ovf"
	exportKopia   = "govc export.ovf, then kopia"
	vmRestore     = "vm_restore"
	govcImport    = "govc import.ovf of a ready VMDK"
)

const restoreConfig = `
resource "vm_restore" "copy" {
  backup_id  = vm_backup.this.id
  on_destroy = "delete"
  new_vm = {
    name     = "restored"
    identity = "copy"
  }
}
`

// backupConfig takes a backup, and another one whenever the number is another.
func backupConfig(vm string, number int) string {
	return fmt.Sprintf(`
resource "vm_backup" "this" {
  vm         = %q
  on_destroy = "retain"
  triggers   = { number = "%d" }
}
`, vm, number)
}

// A site is a lab with a VM that is off, which is all that govc exports, and one that runs, which have
// disks with the same content.
type site struct {
	b        *bench
	dir      string
	raw      string
	capacity int64
	data     int64
	lab      *lab.Lab
	tools    *workshop
}

// transfer backs VMs up and restores them, with the provider and with govc.
func transfer(ctx context.Context, b *bench) (err error) {
	dir, remove, err := b.sub("transfer")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s := &site{b: b, dir: dir, raw: filepath.Join(dir, "disk.raw"), capacity: b.capacity()}
	s.tools = &workshop{b: b, dir: dir}
	if s.tools.kopia, err = buildKopia(ctx, b.dir); err != nil {
		return err
	}
	if s.data, err = makeImage(ctx, s.raw, s.capacity, b.data); err != nil {
		return err
	}
	if err := readAll(s.raw); err != nil { // nobody is the first to read it from the disk
		return err
	}
	s.lab, err = lab.Start(ctx, lab.Options{Dir: filepath.Join(dir, "lab"), VMs: []lab.VMSpec{
		{Name: "off", Disks: []string{s.raw}, PoweredOff: true, ChangeTracking: true},
		{Name: "on", Disks: []string{s.raw}, ChangeTracking: true},
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lab.Close()) }()
	for _, part := range []func(context.Context) error{s.full, s.incremental, s.restore} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) full(ctx context.Context) error {
	err := s.b.compete(ctx, sectionFull,
		contender{govcExport, s.govcExport},
		contender{withDatastore, s.backup("datastore")},
		contender{withExport, s.backup("export")},
		contender{exportKopia, s.exportKopia},
	)
	for _, ours := range []string{withDatastore, withExport} {
		s.b.report.faster(sectionFull, ours, govcExport, 1)
		s.b.report.faster(sectionFull, ours, exportKopia, 1.7)
	}
	return err
}

// backup takes a first backup, into a repository of its own.
func (s *site) backup(transport string) func(context.Context) (outcome, error) {
	return func(ctx context.Context) (o outcome, err error) {
		t, err := s.terraform("full-"+transport, transport)
		if err != nil {
			return outcome{}, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(t.dir)) }()
		// To make a repository is not measured of kopia either.
		if _, err := s.tools.self(ctx, asCreate, t.repository()); err != nil {
			return outcome{}, err
		}
		return t.backUp(ctx, "off", 1)
	}
}

func (s *site) terraform(name, transport string) (*terraform, error) {
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return s.b.terraform(dir, s.lab, transport)
}

// backUp applies a backup, and says what the provider itself says of it besides.
func (t *terraform) backUp(ctx context.Context, vm string, number int) (outcome, error) {
	repository := t.repository()
	before := used(repository)
	u, err := t.apply(ctx, backupConfig(vm, number))
	if err == nil {
		err = u.settle(repository)
	}
	if err != nil {
		return outcome{}, err
	}
	took, err := t.attribute("vm_backup", "duration_seconds")
	if err != nil {
		return outcome{}, err
	}
	read, err := t.attribute("vm_backup", "read_bytes")
	return outcome{Usage: u, Stored: used(repository) - before, Inside: took, Read: int64(read)}, err
}

func (s *site) govcExport(ctx context.Context) (o outcome, err error) {
	target := filepath.Join(s.dir, "exported")
	defer func() { err = errors.Join(err, os.RemoveAll(target)) }()
	u, err := s.govc(ctx, "export.ovf", "-vm", "off", target)
	if err == nil {
		err = u.settle(target)
	}
	return outcome{Usage: u, Stored: used(target)}, err
}

func (s *site) govc(ctx context.Context, args ...string) (usage, error) {
	return govc(ctx, s.lab, filepath.Join(s.dir, "govmomi"), args...)
}

// exportKopia does with two programs what a backup does: exports the VM, and stores that, encrypted and
// without what was there before.
func (s *site) exportKopia(ctx context.Context) (o outcome, err error) {
	exported, target := filepath.Join(s.dir, "exported"), filepath.Join(s.dir, "kept")
	defer func() { err = errors.Join(err, os.RemoveAll(exported), os.RemoveAll(target)) }()
	if err := s.tools.kopiaCreate(ctx, target, false); err != nil {
		return outcome{}, err
	}
	first, err := s.govc(ctx, "export.ovf", "-vm", "off", exported)
	if err != nil {
		return outcome{}, err
	}
	second, err := s.tools.kopiaSnapshot(ctx, target, exported)
	if err == nil { // what was exported has done its service, and need not last
		err = second.settle(target)
	}
	return outcome{Usage: usage{
		Seconds: first.Seconds + second.Seconds, CPUSeconds: first.CPUSeconds + second.CPUSeconds,
		SettleSeconds: second.SettleSeconds,
		PeakBytes:     max(first.PeakBytes, second.PeakBytes), LabSeconds: first.LabSeconds,
		IdleSeconds: first.IdleSeconds + second.IdleSeconds,
	}, Stored: used(target)}, err
}

// changes is how many places of the disk change between two backups, of changeSize bytes each.
const changeSize = 1 << 20

// change has the guest write to 1 % of the data, in places all over the disk.
func (s *site) change(random *rand.Rand) error {
	p := make([]byte, changeSize)
	for range s.data / 100 / changeSize {
		for i := range p {
			p[i] = byte(random.Uint32() & 63)
		}
		offset := random.Int64N(s.capacity-changeSize) &^ (64<<10 - 1)
		if err := s.lab.WriteDisk("on", 0, offset, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) incremental(ctx context.Context) (err error) {
	random := rand.New(rand.NewPCG(3, 4))
	var contenders []contender
	for i, transport := range []string{"datastore", "export"} {
		t, err := s.terraform("incremental-"+transport, transport)
		if err != nil {
			return err
		}
		if _, err := t.backUp(ctx, "on", 0); err != nil {
			return err
		}
		number := 0
		contenders = append(contenders, contender{"vm_backup, " + transport, func(ctx context.Context) (outcome, error) {
			// Both have the same disk, and find the same changes of it in each round.
			if i == 0 {
				if err := s.change(random); err != nil {
					return outcome{}, err
				}
			}
			number++
			return t.backUp(ctx, "on", number)
		}})
	}
	if err := s.b.compete(ctx, sectionIncremental, contenders...); err != nil {
		return err
	}
	r := &s.b.report
	full, incremental := r.find(sectionFull, withDatastore), r.find(sectionIncremental, withDatastore)
	r.atMost(sectionIncremental+": datastore, seconds, at most 4 % of the full one's and 0.5",
		incremental.median(inside), 0.04*full.median(inside)+0.5, "s")
	changed := float64(s.data / 100 / changeSize * 2 * changeSize) // a place begins and ends within chunks
	r.atMost(sectionIncremental+": datastore, bytes read by bytes changed, rounded to chunks",
		incremental.median(func(o outcome) float64 { return float64(o.Read) })/changed, 1.2, "x")
	full, incremental = r.find(sectionFull, withExport), r.find(sectionIncremental, withExport)
	r.atMost(sectionIncremental+": export, CPU seconds by the full one's",
		incremental.median(cpuSeconds)/full.median(cpuSeconds), 0.5, "x")
	return nil
}

func (s *site) restore(ctx context.Context) error {
	exported := filepath.Join(s.dir, "exported")
	if _, err := s.govc(ctx, "export.ovf", "-vm", "off", exported); err != nil {
		return err
	}
	t, err := s.terraform("restore", "datastore")
	if err != nil {
		return err
	}
	config := backupConfig("off", 1)
	if _, err := t.apply(ctx, config); err != nil {
		return err
	}
	err = s.b.compete(ctx, sectionRestore,
		contender{govcImport, func(ctx context.Context) (outcome, error) {
			u, err := s.govc(ctx, "import.ovf", "-name", "imported", "-pool", "DC0_C0/Resources", "-ds", "LocalDS_0",
				filepath.Join(exported, "off", "off.ovf"))
			if err == nil {
				err = compare(s.lab, "imported", s.raw)
			}
			if err == nil {
				_, err = s.govc(ctx, "vm.destroy", "imported")
			}
			return outcome{Usage: u}, err
		}},
		contender{vmRestore, func(ctx context.Context) (outcome, error) {
			u, err := t.apply(ctx, config+restoreConfig)
			if err == nil {
				err = compare(s.lab, "restored", s.raw)
			}
			if err == nil {
				_, err = t.apply(ctx, config)
			}
			return outcome{Usage: u}, err
		}},
	)
	s.b.report.faster(sectionRestore, vmRestore, govcImport, 1)
	return err
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

// used is the size of all files at or below a path.
func used(path string) int64 {
	var total int64
	_ = filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil // what is gone in the meantime takes no space
	})
	return total
}
