package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// The kinds of datastores whose files are plain files. vSAN and vVols keep disks as objects.
var plainDatastores = []string{"VMFS", "NFS", "NFS41"}

const sectorSize = 512

// place is where the files of a point in time are.
type place struct {
	connection types.VirtualMachineConnectionState
	layout     *types.VirtualMachineFileLayoutEx
	measured   bool // the sizes are those at the time of the point in time, or later
}

// place reads what the probes of all disks have in common, once.
func (p *pointInTime) place(ctx context.Context) (*place, error) {
	p.placeMu.Lock()
	defer p.placeMu.Unlock()
	if p.placed != nil {
		return p.placed, nil
	}
	return p.readPlace(ctx)
}

// measured is the place with sizes that are up to date: servers compute them now and then only, or when they
// are asked to. It is read once.
func (p *pointInTime) measured(ctx context.Context) (*place, error) {
	p.placeMu.Lock()
	defer p.placeMu.Unlock()
	if p.placed != nil && p.placed.measured {
		return p.placed, nil
	}
	_, err := methods.RefreshStorageInfo(ctx, p.client.vim, &types.RefreshStorageInfo{This: vmRef(p.vm)})
	if err != nil {
		return nil, fmt.Errorf("refresh storage information: %w", classify(err))
	}
	at, err := p.readPlace(ctx)
	if err != nil {
		return nil, err
	}
	at.measured = true
	return at, nil
}

// readPlace reads the place anew. placeMu is held.
func (p *pointInTime) readPlace(ctx context.Context) (*place, error) {
	var m mo.VirtualMachine
	if err := p.client.properties(ctx, vmRef(p.vm), []string{"runtime.connectionState", "layoutEx"}, &m); err != nil {
		return nil, err
	}
	p.placed = &place{connection: m.Runtime.ConnectionState, layout: m.LayoutEx}
	return p.placed, nil
}

// probe finds out whether a disk can be read as a file of its datastore. If it can't, why says so in a
// sentence. What isn't a flat file that nobody writes to can't: a delta disk has a format of its own,
// and so have disks that are encrypted or filtered.
func (p *pointInTime) probe(ctx context.Context, d *pointDisk) (file folderFile, why string, err error) {
	if why := d.unreadable(); why != "" {
		return folderFile{}, why, nil
	}
	datastore, _ := splitPath(d.backing.base)
	if kind := p.datastores[datastore]; !slices.Contains(plainDatastores, kind) {
		return folderFile{}, fmt.Sprintf("The datastore %q, of type %q, has no plain files.", datastore, kind), nil
	}
	at, err := p.place(ctx)
	if err != nil {
		return folderFile{}, "", err
	}
	if at.connection != types.VirtualMachineConnectionStateConnected {
		return folderFile{}, fmt.Sprintf("The virtual machine's host is %s.", at.connection), nil
	}
	extent := at.extent(p.snapshot.ID, d)
	if extent == nil {
		return folderFile{}, "The disk doesn't consist of one flat file.", nil
	}
	file = folderFile{
		name: extent.Name, url: p.client.folderURL(p.datacenter, extent.Name).String(), size: d.capacity,
	}
	// The first sector tells whether the file can be read at all, whether ranges are served, and the size.
	var sector [sectorSize]byte
	err = p.client.readRange(ctx, file, disk.Extent{Length: min(sectorSize, d.capacity)}, sector[:min(sectorSize, d.capacity)])
	switch {
	case ctx.Err() != nil:
		return folderFile{}, "", fmt.Errorf("probe %s: %w", d.label, context.Cause(ctx))
	case err != nil:
		return folderFile{}, fmt.Sprintf("The disk's file can't be read: %v.", err), nil
	}
	return file, "", nil
}

// probed is what a probe found out.
type probed struct {
	file folderFile
	why  string
}

// probeOnce probes a disk that wasn't yet. wayMu is held.
func (p *pointInTime) probeOnce(ctx context.Context, d *pointDisk) (file folderFile, why string, err error) {
	if found, ok := p.probed[d.key]; ok {
		return found.file, found.why, nil
	}
	if file, why, err = p.probe(ctx, d); err == nil {
		p.probed[d.key] = probed{file, why}
	}
	return file, why, err
}

// exportedTogether says in a sentence why a disk is to be exported though it could be read as a file: because
// another disk of the virtual machine is exported, and reading files while a lease is held makes one of them
// fail. Empty: none is. wayMu is held.
func (p *pointInTime) exportedTogether(ctx context.Context, d *pointDisk) (string, error) {
	for _, other := range p.disks {
		if other == d || slices.Contains(p.exclude, other.key) {
			continue
		}
		if p.ways[other.key] == TransportExport {
			return fmt.Sprintf("%s is exported, and all disks have to be read in the same way.", other.label), nil
		}
		_, why, err := p.probeOnce(ctx, other)
		if err != nil {
			return "", err
		}
		if why != "" {
			return fmt.Sprintf("%s has to be exported, and all disks have to be read in the same way: %s", other.label, why), nil
		}
	}
	return "", nil
}

// readsOtherFile reports whether another disk of the virtual machine is read as a file. wayMu is held.
func (p *pointInTime) readsOtherFile(d *pointDisk) bool {
	for key, way := range p.ways {
		if key != d.key && way == TransportDatastore {
			return true
		}
	}
	return false
}

// sparse says in a sentence why a disk whose allocated areas aren't known is not worth reading as a file: all
// of the file would be sent, and much of it is zeros, which an export leaves out. Empty: it is worth it. What
// a thin disk occupies is known on VMFS only.
func (p *pointInTime) sparse(ctx context.Context, d *pointDisk) (string, error) {
	at, err := p.place(ctx)
	if err != nil {
		return "", err
	}
	datastore, _ := splitPath(d.backing.base)
	thin := d.backing.thin != nil && *d.backing.thin
	occupied := int64(0)
	if extent := at.extent(p.snapshot.ID, d); extent != nil && (!thin || p.datastores[datastore] == "VMFS") {
		occupied = max(extent.Size, extent.UniqueSize)
	}
	switch {
	case occupied == 0 && thin:
		return "The disk is thin, and nothing tells which of its areas are allocated.", nil
	case occupied > 0 && occupied < d.capacity-d.capacity/4:
		return fmt.Sprintf("The disk occupies %d MiB of %d MiB, and nothing tells which areas these are.",
			occupied>>20, d.capacity>>20), nil
	}
	return "", nil
}

// unreadable says in a sentence why the disk's own properties rule out to read it as a file. Empty: they
// don't.
func (d *pointDisk) unreadable() string {
	switch {
	case d.backing.encrypted:
		return "The disk is encrypted."
	case d.filtered:
		return "The disk has I/O filters."
	case !d.flat:
		return "The disk is in a chain of snapshots, or in another format than flat."
	}
	return ""
}

// extent is the one file that holds the bytes of a disk as of a snapshot, nil if there isn't just one. The
// file that change tracking is kept in is listed along with it by some servers.
func (a *place) extent(snapshot hypervisor.SnapshotID, d *pointDisk) *types.VirtualMachineFileLayoutExFileInfo {
	if a.layout == nil {
		return nil
	}
	i := slices.IndexFunc(a.layout.Snapshot, func(s types.VirtualMachineFileLayoutExSnapshotLayout) bool {
		return s.Key.Value == string(snapshot)
	})
	if i < 0 {
		return nil
	}
	disks := a.layout.Snapshot[i].Disk
	i = slices.IndexFunc(disks, func(l types.VirtualMachineFileLayoutExDiskLayout) bool { return l.Key == d.device })
	if i < 0 || len(disks[i].Chain) != 1 {
		return nil
	}
	var found *types.VirtualMachineFileLayoutExFileInfo
	for _, key := range disks[i].Chain[0].FileKey {
		for j := range a.layout.File {
			f := &a.layout.File[j]
			if f.Key != key || f.Type != string(types.VirtualMachineFileLayoutExFileTypeDiskExtent) {
				continue
			}
			if strings.HasSuffix(f.Name, "-ctk.vmdk") {
				continue
			}
			if found != nil || f.Name != strings.TrimSuffix(d.backing.base, ".vmdk")+"-flat.vmdk" {
				return nil
			}
			found = f
		}
	}
	return found
}
