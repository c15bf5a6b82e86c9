package vsphere

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// maxDirectories is how many names for the VM's directory are tried.
const maxDirectories = 100

// placeDirectory chooses a directory for the VM that isn't there yet, here rather than leaving it to the
// server, so that it is known what to clean up. The original gets the one that it had; otherwise it is
// named after the finished VM rather than the one in the making.
func (c *Client) placeDirectory(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	store := p.stores[p.home]
	if keepsObjects(store) {
		return nil
	}
	if directory, vmx := ownDirectory(spec, captured, p); directory != "" {
		there, err := c.datastoreHas(ctx, store, ".", directory)
		if err != nil {
			return err
		}
		if !there {
			p.directory, p.vmx, p.keepFiles = directory, vmx, true
			return nil
		}
	}
	base := escapeName(p.name)
	for i := range maxDirectories {
		name := base
		if i > 0 {
			name = fmt.Sprintf("%s_%d", base, i)
		}
		there, err := c.datastoreHas(ctx, store, ".", name)
		if err != nil {
			return err
		}
		if !there {
			p.directory, p.vmx = name, base+".vmx"
			return nil
		}
	}
	return fmt.Errorf("datastore %q has %d directories of the name %q already", p.home, maxDirectories, base)
}

// ownDirectory is the directory of the captured VM and the name of its vmx file, if the restored one is to be
// the original, under the same name and on the same datastore. A VM that was renamed or moved has files whose
// names don't follow from its own, and others may know them.
func ownDirectory(spec hypervisor.RestoreSpec, captured *capture, p *placement) (directory, vmx string) {
	store, file := splitPath(captured.config.Files.VmPathName)
	directory, vmx = path.Split(file)
	directory = strings.TrimSuffix(directory, "/")
	switch {
	case spec.Identity != hypervisor.IdentityOriginal, p.name != captured.Name, store != p.home,
		directory == "", strings.Contains(directory, "/"), path.Ext(vmx) != ".vmx":
		return "", ""
	}
	return directory, vmx
}

// rebuild says how the VM is made, once it is known where. The VM in the making has a name of its own.
func (p *placement) rebuild(spec hypervisor.RestoreSpec, captured *capture) rebuild {
	r := rebuild{
		name: makingName(spec.RunID), marker: spec.RunID, identity: spec.Identity, disconnect: spec.Disconnect || spec.Isolated,
		networks: p.networks, images: p.images, disks: map[int32]string{}, unwanted: p.unwanted,
		sameHost: p.sameHost, versions: p.versions, vmPathName: joinPath(p.home, ""),
	}
	if p.directory == "" {
		for key, store := range p.disks {
			r.disks[key] = joinPath(store, "")
		}
		return r
	}
	r.vmPathName = joinPath(p.home, path.Join(p.directory, p.vmx))
	taken := map[string]bool{}
	if p.keepFiles {
		p.keepNames(captured, &r, taken)
	}
	base, n := strings.TrimSuffix(p.vmx, ".vmx"), 0
	next := func() string {
		for {
			name := base + ".vmdk"
			if n > 0 {
				name = fmt.Sprintf("%s_%d.vmdk", base, n)
			}
			n++
			if !taken[name] {
				return name
			}
		}
	}
	for _, d := range orderedDisks(captured.devices()) {
		store, ok := p.disks[d.Key]
		switch {
		case !ok, r.disks[d.Key] != "":
		case store != p.home:
			r.disks[d.Key] = joinPath(store, "") // the server makes the directory there
		default:
			r.disks[d.Key] = joinPath(store, path.Join(p.directory, next()))
		}
	}
	return r
}

// keepNames gives the disks that were in the VM's directory the names that they had.
func (p *placement) keepNames(captured *capture, r *rebuild, taken map[string]bool) {
	for _, d := range orderedDisks(captured.devices()) {
		store, file := splitPath(firstFile(d.Backing))
		directory, name := path.Split(file)
		if p.disks[d.Key] != p.home || store != p.home || strings.TrimSuffix(directory, "/") != p.directory ||
			path.Ext(name) != ".vmdk" || taken[name] {
			continue
		}
		taken[name] = true
		r.disks[d.Key] = joinPath(store, file)
	}
}

// deltaName matches the names of the files that snapshots have a disk continue in.
var deltaName = regexp.MustCompile(`-\d{6}\.vmdk$`)

// firstFile is the file at the beginning of a disk's chain.
func firstFile(backing types.BaseVirtualDeviceBackingInfo) string {
	name := describeBacking(backing).fileName
	switch b := backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		for b.Parent != nil {
			b = b.Parent
		}
		name = b.FileName
	case *types.VirtualDiskSeSparseBackingInfo:
		for b.Parent != nil {
			b = b.Parent
		}
		name = b.FileName
	}
	return deltaName.ReplaceAllString(name, ".vmdk")
}
