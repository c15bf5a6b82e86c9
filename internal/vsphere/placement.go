package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// A placement is where a restored VM goes: every name of a hypervisor.RestoreSpec, resolved.
type placement struct {
	name       string // of the finished VM
	folder     types.ManagedObjectReference
	folderPath string
	datacenter lineage // ends with the datacenter
	pool       types.ManagedObjectReference
	compute    mo.ComputeResource
	host       *types.ManagedObjectReference // nil: the server chooses
	usable     []mo.HostSystem               // hosts that could be chosen
	versions   []string                      // of the hardware that can be made there; nil: not known
	sameHost   bool                          // host is the one that the VM was captured on

	stores    map[string]mo.Datastore // that the VM can use there, by name
	home      string                  // datastore of the VM
	directory string                  // of the VM on home; empty: the server chooses
	vmx       string                  // name of the vmx file in directory
	keepFiles bool                    // directory is the captured one, and disks keep their names in it
	disks     map[int32]string        // datastore of each disk to create, by device key
	unwanted  map[int32]bool          // disks in the backup that are not to be restored
	networks  map[int32]types.BaseVirtualDeviceBackingInfo
	attached  []types.ManagedObjectReference // the networks
	images    map[int32]types.BaseVirtualDeviceBackingInfo

	inTheWay []types.ManagedObjectReference // VMs in the making of abandoned runs that have the identity
	space    *hypervisor.InsufficientSpaceError

	tags       []string // IDs
	attributes []customValue
	policies   map[int32]string // IDs of storage policies, by device key; the VM's own is under homeKey
	warnings   []string
}

// place resolves where a VM goes and checks everything that can be checked beforehand. It creates
// nothing. Whether another VM stands in the way comes last: that one may make way, and whatever else is
// wrong has to be known before it does. With such an error there is a placement, for its warnings.
func (c *Client) place(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture,
) (*placement, error) {
	p := &placement{name: spec.Name}
	if p.name == "" {
		p.name = captured.Name
	}
	if spec.Identity != hypervisor.IdentityOriginal && spec.Identity != hypervisor.IdentityCopy {
		return nil, fmt.Errorf("identity %q is neither %q nor %q", spec.Identity, hypervisor.IdentityOriginal, hypervisor.IdentityCopy)
	}
	steps := []func(context.Context, hypervisor.RestoreSpec, *capture, *placement) error{
		c.placeFolder, c.placePool, c.placeHost, c.checkHardwareVersion,
		c.placeDisks, c.placeNetworks, c.placeImages, c.placeLabels, c.placeDirectory, c.placePolicies, c.preferHost,
	}
	for _, step := range steps {
		if err := step(ctx, spec, captured, p); err != nil {
			return nil, err
		}
	}
	err := c.checkIdentity(ctx, spec, captured, p)
	if err == nil {
		err = c.checkName(ctx, p)
	}
	var identity *hypervisor.IdentityInUseError
	var name *hypervisor.NameInUseError
	switch {
	case errors.As(err, &identity), errors.As(err, &name):
		if p.space != nil {
			p.warnings = append(p.warnings, fmt.Sprintf("%v, unless the VM that is in the way frees some.", p.space))
		}
		return p, err
	case err != nil:
		return nil, err
	case p.space != nil && len(p.inTheWay) == 0:
		return nil, p.space
	}
	return p, nil
}

// checkIdentity refuses a second VM with the same identity: tools that know a VM by its UUID, Terraform
// providers among them, would act on one of the two at random.
func (c *Client) checkIdentity(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	if spec.Identity != hypervisor.IdentityOriginal {
		return nil
	}
	for _, id := range []struct {
		kind, value string
		instance    bool
	}{
		{"BIOS UUID", captured.config.Uuid, false},
		{"instance UUID", captured.config.InstanceUuid, true},
	} {
		if id.value == "" {
			continue
		}
		refs, err := c.searchUUID(ctx, id.value, id.instance)
		if err != nil {
			return fmt.Errorf("look for %s %s: %w", id.kind, id.value, err)
		}
		for _, ref := range refs {
			if slices.Contains(p.inTheWay, ref) {
				continue
			}
			line, err := c.ancestors(ctx, ref)
			if err != nil {
				return err
			}
			dead, err := c.leftover(ctx, ref, spec.Abandoned)
			if err != nil {
				return err
			}
			if !dead {
				return &hypervisor.IdentityInUseError{Kind: id.kind, Value: strings.ToLower(id.value), VM: line.path()}
			}
			p.inTheWay = append(p.inTheWay, ref)
			p.warnings = append(p.warnings, fmt.Sprintf(
				"%s has the %s %s. A restore was making it: if that was killed, it is removed first, else this one is refused.", line.path(), id.kind, id.value))
		}
	}
	return nil
}

// leftover reports whether a VM is one in the making, by name and marker, whose run is over.
func (c *Client) leftover(
	ctx context.Context, ref types.ManagedObjectReference, abandoned func(hypervisor.Unfinished) bool,
) (bool, error) {
	if abandoned == nil {
		return false, nil
	}
	var vm mo.VirtualMachine
	if err := c.properties(ctx, ref, []string{"name"}, &vm); err != nil {
		if vmGone(err) {
			return true, nil
		}
		return false, err
	}
	runID, ok := strings.CutPrefix(unescapeName(vm.Name), makingPrefix)
	if !ok {
		return false, nil
	}
	if marker, err := c.readMarker(ctx, ref); err != nil || marker != runID {
		return false, err
	}
	found, err := c.unfinished(ctx, ref, runID)
	return found != nil && abandoned(*found), err
}

// placeFolder finds the VM folder. A path that doesn't begin with a slash is relative to the VM folder of
// the datacenter that the VM was captured in.
func (c *Client) placeFolder(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	root := "/" + captured.Datacenter + "/vm"
	wanted := spec.Folder
	if wanted == "" {
		wanted = captured.Folder
	}
	if wanted == "" { // the captured VM was in a vApp, which has no folder
		wanted = root
	}
	candidates := []string{wanted}
	if !strings.HasPrefix(wanted, "/") {
		candidates = []string{root + "/" + wanted, "/" + wanted}
	}
	for _, candidate := range candidates {
		ref, err := c.findPath(ctx, candidate)
		if err != nil {
			return err
		}
		if ref == nil || ref.Type != "Folder" {
			continue
		}
		var folder mo.Folder
		if err := c.properties(ctx, *ref, []string{"childType"}, &folder); err != nil {
			return err
		}
		if !slices.Contains(folder.ChildType, "VirtualMachine") {
			continue
		}
		line, err := c.ancestors(ctx, *ref)
		if err != nil {
			return err
		}
		p.folder, p.folderPath = *ref, line.path()
		for i := range line {
			if line[i].Self.Type == "Datacenter" {
				p.datacenter = line[:i+1]
			}
		}
		return nil
	}
	return c.noFolder(ctx, wanted)
}

// findPath finds an object by its inventory path, whose names may be written as they are displayed or with
// the API's escapes; nil: there is none.
func (c *Client) findPath(ctx context.Context, path string) (*types.ManagedObjectReference, error) {
	elements := strings.Split(strings.Trim(path, "/"), "/")
	for i, e := range elements {
		elements[i] = escapeName(unescapeName(e))
	}
	res, err := methods.FindByInventoryPath(ctx, c.vim, &types.FindByInventoryPath{
		This: *c.vim.ServiceContent.SearchIndex, InventoryPath: strings.Join(elements, "/"),
	})
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", path, classify(err))
	}
	return res.Returnval, nil
}

// checkName refuses a name that the folder holds already.
func (c *Client) checkName(ctx context.Context, p *placement) error {
	child, err := c.findChild(ctx, p.folder, p.name)
	if err != nil {
		return err
	}
	if child != nil {
		return &hypervisor.NameInUseError{Name: p.name, Folder: p.folderPath}
	}
	return nil
}

// findChild finds what a folder holds under a name; nil: nothing.
func (c *Client) findChild(
	ctx context.Context, folder types.ManagedObjectReference, name string,
) (*types.ManagedObjectReference, error) {
	res, err := methods.FindChild(ctx, c.vim, &types.FindChild{
		This: *c.vim.ServiceContent.SearchIndex, Entity: folder, Name: escapeName(name),
	})
	if err != nil {
		return nil, fmt.Errorf("look for %q: %w", name, classify(err))
	}
	return res.Returnval, nil
}

// placeLabels finds the tags and custom attributes.
func (c *Client) placeLabels(
	ctx context.Context, spec hypervisor.RestoreSpec, captured *capture, p *placement,
) error {
	if spec.Isolated {
		return nil
	}
	ids, warnings, err := c.findTags(ctx, captured.Tags)
	if err != nil {
		return err
	}
	p.tags, p.warnings = ids, append(p.warnings, warnings...)
	values, warnings, err := c.findCustomAttributes(ctx, captured.CustomAttributes)
	if err != nil {
		return err
	}
	p.attributes, p.warnings = values, append(p.warnings, warnings...)
	return nil
}
