package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

const (
	vmName   = "web01"
	password = "only for this demonstration"
)

// play goes through all steps.
func (d *demo) play(ctx context.Context) error {
	fmt.Fprintln(d.out, d.bold("A VM is lost and comes back, byte for byte"))
	steps := []struct {
		title string
		step  func(context.Context) error
	}{
		{"Find Terraform and install a guest on two disks", d.install},
		{"Start a vCenter with that VM running on it", d.startLab},
		{"terraform apply: a snapshot and a backup", d.takeBackup},
		{"The guest spoils its files", d.spoil},
		{"Somebody destroys the VM, snapshot and all", d.destroyVM},
		{"terraform apply: restore", d.restore},
		{"Compare every byte with what was backed up", d.compareDisks},
		{"Compare every setting with what was backed up", d.compareSettings},
		{"terraform apply: a second backup", d.backUpAgain},
		{"terraform destroy", d.tearDown},
	}
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.do(s.title, func() error { return s.step(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// path is a path below the demo's directory.
func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) makeSystem(ctx context.Context, img image) (string, error) {
	return d.files.makeFileSystem(ctx, img, filepath.Join(d.bin, "..", "tools"))
}

func (d *demo) install(ctx context.Context) (err error) {
	if d.program, err = findTerraform(ctx, d.bin, releaseSite{}); err != nil {
		return err
	}
	name, err := versionOf(ctx, d.program)
	if err != nil {
		return err
	}
	d.line("command", "%s", name)
	if d.files, err = collectFiles(ctx, d.path("files"), filepath.Join(d.bin, "terraform-provider-vm")); err != nil {
		return err
	}
	d.disks = []image{{d.path("system.raw"), systemCapacity}, {d.path("data.raw"), dataCapacity}}
	how, err := d.makeSystem(ctx, d.disks[0])
	if err != nil {
		return err
	}
	d.line("system disk", "%s, ext4 (%s), %d files of %s", size(systemCapacity), how, len(d.files.files), size(d.files.bytes))
	check, err := checkFileSystem(ctx, d.disks[0])
	if err != nil {
		return err
	}
	d.line("file system", "%s", check)
	if err := makeData(d.disks[1]); err != nil {
		return err
	}
	d.line("data disk", "%s and one sector, pages of a database", size(dataCapacity-512))
	return nil
}

func (d *demo) startLab(ctx context.Context) (err error) {
	if d.lab, err = startLab(ctx, d.bin, d.path("lab"), vmName, d.disks); err != nil {
		return err
	}
	d.line("vCenter", "%s", d.lab.url)
	if d.before, err = d.look(ctx); err != nil {
		return err
	}
	d.line("VM", "%s, %s, BIOS UUID %s", d.before.Name, d.before.PowerState, d.before.BIOSUUID)
	for i, disk := range d.before.Disks {
		d.line(fmt.Sprintf("disk %d", i), "%s, UUID %s", size(disk.Capacity), disk.UUID)
	}
	for i, nic := range d.before.NICs {
		d.line(fmt.Sprintf("network adapter %d", i), "%s", nic.MAC)
	}
	d.terraform, err = newTerraform(d.program, d.bin, d.path("terraform"), d.lab, password)
	return err
}

// look is the VM with everything about it.
func (d *demo) look(ctx context.Context) (vm vmStatus, err error) {
	v, err := login(ctx, d.lab)
	if err != nil {
		return vm, err
	}
	defer func() { err = errors.Join(err, v.logout(context.WithoutCancel(ctx))) }()
	s, err := d.lab.status(ctx)
	if err != nil {
		return vm, err
	}
	if vm, err = d.lab.vm(ctx, vmName); err != nil {
		return vm, err
	}
	vm.nvram, err = v.nvram(ctx, s, vm)
	return vm, err
}

func (d *demo) takeBackup(ctx context.Context) error {
	config := []string{providerConfig(d.lab, d.path("repository")), snapshotConfig(vmName), backupConfig(vmName)}
	if err := d.terraform.write(config...); err != nil {
		return err
	}
	var out struct {
		Snapshot snapshotOutput `json:"snapshot"`
		Backup   backupOutput   `json:"backup"`
	}
	if err := d.terraform.apply(ctx, &out); err != nil {
		return err
	}
	d.backup = out.Backup
	d.line("snapshot", "before-change, %s-consistent, level %d", out.Snapshot.Consistency, out.Snapshot.ChainDepth)
	d.line("backup", "%s, %s-consistent, by the %s transport", d.backup.ID, d.backup.Consistency, d.backup.Transport)
	d.showBackup(d.backup)
	if err := d.terraform.plansNothing(ctx); err != nil {
		return err
	}
	d.line("second plan", "no changes")
	return d.temporarySnapshotsGone(ctx, 1)
}

func (d *demo) showBackup(b backupOutput) {
	d.line("sizes", "disks %s, read %s, stored %s", size(b.SizeBytes), size(b.ReadBytes), size(b.StoredBytes))
	for _, disk := range b.Disks {
		d.line(disk.Label, "%s, %s", size(disk.CapacityBytes), shorten(disk.Digest))
	}
}

// shorten cuts a long digest for the reader.
func shorten(digest string) string {
	const enough = 26
	if len(digest) <= enough {
		return digest
	}
	return digest[:enough] + "…"
}

// temporarySnapshotsGone fails unless the VM has just so many snapshots, and nobody holds a lease.
func (d *demo) temporarySnapshotsGone(ctx context.Context, snapshots int) error {
	s, err := d.lab.status(ctx)
	if err != nil {
		return err
	}
	if len(s.Leases) > 0 {
		return fmt.Errorf("%d leases are still open", len(s.Leases))
	}
	for _, vm := range s.VMs {
		if vm.Name == vmName && len(vm.Snapshots) != snapshots {
			return fmt.Errorf("the VM has %d snapshots instead of %d: %v", len(vm.Snapshots), snapshots, vm.Snapshots)
		}
	}
	d.line("left behind", "no temporary snapshot, no lease")
	return nil
}

func (d *demo) spoil(ctx context.Context) error {
	files, bytes, err := d.files.spoil("srv/crypto")
	if err != nil {
		return err
	}
	spoilt := image{d.path("spoilt.raw"), systemCapacity}
	if _, err := d.makeSystem(ctx, spoilt); err != nil {
		return err
	}
	changes, err := differences(d.disks[0], spoilt)
	if err != nil {
		return err
	}
	// And the database loses a page here and there.
	onData := []change{{0, make([]byte, pageSize)}, {20<<20 + 100, []byte(strings.Repeat("lost ", 4000))}}
	written := int64(0)
	for disk, changes := range [][]change{changes, onData} {
		for _, c := range changes {
			if err := d.lab.write(ctx, vmName, disk, c); err != nil {
				return err
			}
			written += int64(len(c.data))
		}
	}
	d.line("overwritten", "%d files of %s, and two places in the database", files, size(bytes))
	d.line("the guest wrote", "%s in %d runs", size(written), len(changes)+len(onData))
	if _, err := d.lab.read(ctx, vmName, 0, d.disks[0], d.path("read.raw")); err == nil {
		return errors.New("the guest wrote, but its disk is as before")
	}
	return nil
}

func (d *demo) destroyVM(ctx context.Context) (err error) {
	v, err := login(ctx, d.lab)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.logout(context.WithoutCancel(ctx))) }()
	vm, err := d.lab.vm(ctx, vmName)
	if err != nil {
		return err
	}
	if err := v.destroy(ctx, vm); err != nil {
		return err
	}
	s, err := d.lab.status(ctx)
	if err != nil {
		return err
	}
	if files := filesOfVM(s); len(s.VMs)+len(files) > 0 {
		return fmt.Errorf("left of it: %d VMs, files %q", len(s.VMs), files)
	}
	d.line("left of it", "nothing: no VM, no disk, no snapshot")
	return nil
}

// filesOfVM are the files in the VM's directories.
func filesOfVM(s labStatus) []string {
	var names []string
	for _, f := range s.Files {
		if strings.Contains(f.Name, vmName) {
			names = append(names, f.Name)
		}
	}
	return names
}

func (d *demo) restore(ctx context.Context) error {
	config := []string{providerConfig(d.lab, d.path("repository")), backupConfig(vmName), restoreConfig}
	if err := d.terraform.write(config...); err != nil {
		return err
	}
	var out struct {
		Restore restoreOutput `json:"restore"`
	}
	if err := d.terraform.apply(ctx, &out); err != nil {
		return err
	}
	d.line("restored", "%s as %s, %s of data, %s", out.Restore.VMPath, out.Restore.VMID, size(out.Restore.RestoredBytes),
		out.Restore.PowerState)
	if err := d.terraform.plansNothing(ctx); err != nil {
		return err
	}
	d.line("second plan", "no changes")
	return nil
}

func (d *demo) compareDisks(ctx context.Context) error {
	for i, disk := range d.disks {
		restored := image{d.path(fmt.Sprintf("restored%d.raw", i)), disk.capacity}
		data, err := d.lab.read(ctx, vmName, i, disk, restored.path)
		if err != nil {
			return fmt.Errorf("disk %d: %w", i, err)
		}
		d.line(fmt.Sprintf("disk %d", i), "all %d bytes agree, %s of them data", disk.capacity, size(data))
		if i == 0 {
			check, err := checkFileSystem(ctx, restored)
			if err != nil {
				return err
			}
			d.line("file system", "%s", check)
		}
	}
	return nil
}

func (d *demo) compareSettings(ctx context.Context) error {
	after, err := d.look(ctx)
	if err != nil {
		return err
	}
	n, err := compareVMs(d.before, after)
	if err != nil {
		return err
	}
	d.line("identity", "BIOS UUID %s, instance UUID %s", after.BIOSUUID, after.InstanceUUID)
	for i := range after.Disks {
		d.line(fmt.Sprintf("disk %d", i), "UUID %s", after.Disks[i].UUID)
	}
	for i := range after.NICs {
		d.line(fmt.Sprintf("network adapter %d", i), "%s", after.NICs[i].MAC)
	}
	d.line("settings", "all %d agree; NVRAM too (%s)", n, size(int64(len(after.nvram))))
	reasons := make([]string, len(volatile))
	for i, v := range volatile {
		reasons[i] = v.reason
	}
	d.line("not compared", "%s", strings.Join(reasons, "; "))
	return nil
}

func (d *demo) backUpAgain(ctx context.Context) error {
	config := []string{providerConfig(d.lab, d.path("repository")), backupConfig(vmName), restoreConfig, secondBackupConfig}
	if err := d.terraform.write(config...); err != nil {
		return err
	}
	var out struct {
		Second backupOutput `json:"second"`
	}
	if err := d.terraform.apply(ctx, &out); err != nil {
		return err
	}
	d.showBackup(out.Second)
	for i := range out.Second.Disks {
		if i >= len(d.backup.Disks) || out.Second.Disks[i].Digest != d.backup.Disks[i].Digest {
			return errors.New("the second backup of the same bytes has another digest")
		}
	}
	// Chunks of manifests and of the disks' tables differ; data doesn't.
	if limit := max(d.backup.StoredBytes/50, 1<<20); out.Second.StoredBytes > limit {
		return fmt.Errorf("the second backup stored %s, more than %s", size(out.Second.StoredBytes), size(limit))
	}
	d.line("stored again", "%.2f %% of the first", 100*float64(out.Second.StoredBytes)/float64(max(1, d.backup.StoredBytes)))
	return d.temporarySnapshotsGone(ctx, 0)
}

func (d *demo) tearDown(ctx context.Context) error {
	if err := d.terraform.destroy(ctx); err != nil {
		return err
	}
	s, err := d.lab.status(ctx)
	if err != nil {
		return err
	}
	running := 0
	for _, t := range s.Tasks {
		if t.State == "running" || t.State == "queued" {
			running++
		}
	}
	if files := filesOfVM(s); len(s.VMs)+len(s.Leases)+len(s.Sessions)+running+len(files) > 0 {
		return fmt.Errorf("left behind: %d VMs, leases %s, sessions %s, %d tasks, files %q",
			len(s.VMs), s.Leases, s.Sessions, running, files)
	}
	d.line("left behind", "no VM, no file, no lease, no session, no task")
	return nil
}
