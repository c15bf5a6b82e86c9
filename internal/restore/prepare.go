package restore

import (
	"context"
	"fmt"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A job is a request together with what the restore point says.
type job struct {
	Request
	manifest *repository.Manifest
	spec     hypervisor.RestoreSpec
	warnings []string
}

// prepare reads the restore point, all but its disks, and turns the request into the hypervisor's
// words.
func (m *Manager) prepare(ctx context.Context, r Request) (*job, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	manifest, err := m.repo.Get(ctx, r.BackupID)
	if err != nil {
		return nil, fmt.Errorf("restore from %s: %w", r.BackupID, err)
	}
	j := &job{Request: r, manifest: manifest}
	for _, warning := range manifest.Warnings {
		j.warnings = append(j.warnings, "when the backup was taken: "+warning)
	}
	j.spec.Abandoned = m.abandoned
	j.spec.Config = hypervisor.Config{Format: manifest.Config.Format, Summary: summary(manifest)}
	if j.spec.Config.Data, err = m.repo.ReadFile(ctx, r.BackupID, manifest.Config.File); err != nil {
		return nil, fmt.Errorf("restore from %s: read the configuration: %w", r.BackupID, err)
	}
	if manifest.Config.NVRAM != "" {
		if j.spec.Config.NVRAM, err = m.repo.ReadFile(ctx, r.BackupID, manifest.Config.NVRAM); err != nil {
			return nil, fmt.Errorf("restore from %s: read the firmware's variables: %w", r.BackupID, err)
		}
	}
	if err := j.place(); err != nil {
		return nil, err
	}
	return j, nil
}

// validate refuses what contradicts itself.
func (r Request) validate() error {
	if r.BackupID == "" {
		return fmt.Errorf("%w: no backup is named", ErrRequest)
	}
	switch r.Power {
	case "", PowerAsCaptured, PowerOn, PowerOff:
	default:
		return fmt.Errorf("%w: power %q is none of as_captured, on, off", ErrRequest, r.Power)
	}
	if r.NewVM == nil {
		return nil
	}
	switch r.NewVM.Identity {
	case "", hypervisor.IdentityOriginal, hypervisor.IdentityCopy:
		return nil
	default:
		return fmt.Errorf("%w: identity %q is none of original, copy", ErrRequest, r.NewVM.Identity)
	}
}

// place fills in where to and as whom.
func (j *job) place() error {
	j.spec.Identity = hypervisor.IdentityOriginal
	if j.NewVM == nil {
		return nil
	}
	n := j.NewVM
	if n.Identity != "" {
		j.spec.Identity = n.Identity
	}
	copied := j.spec.Identity == hypervisor.IdentityCopy
	j.spec.Name, j.spec.Folder, j.spec.ResourcePool = n.Name, n.Folder, n.ResourcePool
	j.spec.Host, j.spec.Datastore, j.spec.Networks = n.Host, n.Datastore, n.NetworkMap
	j.spec.Disconnect = copied
	if n.ConnectNetworks != nil {
		j.spec.Disconnect = !*n.ConnectNetworks
	}
	j.spec.DiskDatastores = map[hypervisor.DiskKey]string{}
	for name, datastore := range n.DiskDatastores {
		disks := j.spec.Config.Summary.Disks
		i := hypervisor.FindDisk(disks, name)
		if i < 0 {
			return fmt.Errorf("%w: the backup holds no disk %q; it holds: %s",
				ErrRequest, name, hypervisor.ListDisks(disks))
		}
		key := disks[i].Key
		if other, ok := j.spec.DiskDatastores[key]; ok && other != datastore {
			return fmt.Errorf("%w: %s is to go to both %q and %q",
				ErrRequest, disks[i].Label, other, datastore)
		}
		j.spec.DiskDatastores[key] = datastore
	}
	return nil
}

// summary is the captured VM as the manifest describes it.
func summary(m *repository.Manifest) hypervisor.VM {
	vm := hypervisor.VM{
		Name: m.VM.Name, Path: m.VM.Path, Server: m.VM.Server, GuestID: m.VM.GuestID,
		BIOSUUID: m.VM.BIOSUUID, InstanceUUID: m.VM.InstanceUUID,
		PowerState: hypervisor.PowerState(m.VM.PowerState), HardwareVersion: m.VM.HardwareVersion,
		CPUs: m.VM.CPUs, MemoryBytes: m.VM.MemoryBytes,
	}
	for _, d := range m.Disks {
		vm.Disks = append(vm.Disks, hypervisor.Disk{
			Key: hypervisor.DiskKey(d.Key), Label: d.Label, Address: d.Address, UUID: d.UUID,
			Capacity: d.Capacity, Datastore: d.Datastore, Path: d.Path,
		})
	}
	return vm
}

// name is that of the VM to make.
func (j *job) name() string {
	if j.spec.Name != "" {
		return j.spec.Name
	}
	return j.manifest.VM.Name
}

// dataBytes is how much is there to write.
func (j *job) dataBytes() int64 {
	var n int64
	for _, d := range j.manifest.Disks {
		n += d.DataBytes
	}
	return n
}

// powerOn reports whether the VM is to be started.
func (j *job) powerOn() bool {
	switch j.Power {
	case PowerOn:
		return true
	case PowerOff:
		return false
	default:
		return j.manifest.VM.PowerState == string(hypervisor.PoweredOn)
	}
}
