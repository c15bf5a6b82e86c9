package restore

import (
	"context"
	"fmt"
	"slices"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// A job is a request together with what the restore point says.
type job struct {
	Request
	manifest *repository.Manifest
	disks    []repository.Disk // those to restore
	spec     hypervisor.RestoreSpec
	target   string // the VM to restore into, once it is known
	warnings []string
	clean    *cleaning // nil: that is not begun
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
	if err := j.choose(); err != nil {
		return nil, err
	}
	if err := j.place(); err != nil {
		return nil, err
	}
	return j, nil
}

// validate refuses what contradicts itself.
func (r Request) validate() error {
	switch {
	case r.BackupID == "":
		return fmt.Errorf("%w: no backup is named", ErrRequest)
	case r.NewVM != nil && r.InPlace != nil:
		return fmt.Errorf("%w: a new virtual machine and one that exists exclude each other", ErrRequest)
	case r.Disks != nil && len(r.Disks) == 0:
		return fmt.Errorf("%w: the list of disks to restore is empty", ErrRequest)
	}
	if err := r.validatePower(); err != nil {
		return err
	}
	if p := r.InPlace; p != nil && (p.ShutdownTimeout < 0 || p.KeepReplacedDisks < 0) {
		return fmt.Errorf("%w: a negative duration", ErrRequest)
	}
	if w := r.WaitForGuest; w != nil && w.Timeout < 0 {
		return fmt.Errorf("%w: a negative timeout of waiting for the guest", ErrRequest)
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

func (r Request) validatePower() error {
	switch r.Power {
	case "", PowerAsCaptured, PowerOn, PowerOff:
	case PowerAsBefore:
		if r.InPlace == nil {
			return fmt.Errorf("%w: power %q is about a virtual machine that exists", ErrRequest, r.Power)
		}
	default:
		return fmt.Errorf("%w: power %q is none of as_captured, as_before, on, off", ErrRequest, r.Power)
	}
	if r.Power == PowerOff && r.WaitForGuest != nil {
		return fmt.Errorf("%w: the guest of a virtual machine that is not to be started can't be waited for", ErrRequest)
	}
	return nil
}

// choose finds the disks to restore.
func (j *job) choose() error {
	j.disks = j.manifest.Disks
	if j.Disks == nil {
		return nil
	}
	all := j.spec.Config.Summary.Disks
	for _, name := range j.Disks {
		i := hypervisor.FindDisk(all, name)
		if i < 0 {
			return j.unknownDisk(name)
		}
		if !slices.Contains(j.spec.Disks, all[i].Key) {
			j.spec.Disks = append(j.spec.Disks, all[i].Key)
		}
	}
	j.disks = slices.DeleteFunc(slices.Clone(j.disks), func(d repository.Disk) bool {
		return !slices.Contains(j.spec.Disks, hypervisor.DiskKey(d.Key))
	})
	return nil
}

func (j *job) unknownDisk(name string) error {
	return fmt.Errorf("%w: the backup holds no disk %q; it holds: %s",
		ErrRequest, name, hypervisor.ListDisks(j.spec.Config.Summary.Disks))
}

// chosen reports whether a disk is to be restored.
func (j *job) chosen(key hypervisor.DiskKey) bool {
	return j.spec.Disks == nil || slices.Contains(j.spec.Disks, key)
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
	return j.placeDisks()
}

func (j *job) placeDisks() error {
	j.spec.DiskDatastores = map[hypervisor.DiskKey]string{}
	for name, datastore := range j.NewVM.DiskDatastores {
		disks := j.spec.Config.Summary.Disks
		i := hypervisor.FindDisk(disks, name)
		if i < 0 {
			return j.unknownDisk(name)
		}
		key := disks[i].Key
		if !j.chosen(key) {
			return fmt.Errorf("%w: %s is to go to %q, but is not among the disks to restore",
				ErrRequest, disks[i].Label, datastore)
		}
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
		vm.Disks = append(vm.Disks, portDisk(d))
	}
	return vm
}

// portDisk is a disk of a restore point in the hypervisor's words.
func portDisk(d repository.Disk) hypervisor.Disk {
	return hypervisor.Disk{
		Key: hypervisor.DiskKey(d.Key), Label: d.Label, Address: d.Address, UUID: d.UUID,
		Capacity: d.Capacity, Datastore: d.Datastore, Path: d.Path,
	}
}

// name is that of the VM to make, or to restore into.
func (j *job) name() string {
	switch {
	case j.target != "":
		return j.target
	case j.spec.Name != "":
		return j.spec.Name
	}
	return j.manifest.VM.Name
}

// failed says what the error is about.
func (j *job) failed(err error) error {
	if j.InPlace != nil {
		return fmt.Errorf("restore %q in place from %s: %w", j.name(), j.BackupID, err)
	}
	return fmt.Errorf("restore %q from %s: %w", j.name(), j.BackupID, err)
}

// dataBytes is how much is there to write.
func (j *job) dataBytes() int64 {
	var n int64
	for _, d := range j.disks {
		n += d.DataBytes
	}
	return n
}

// then is what is done with the VM once its disks are restored. ran is whether it ran before.
func (j *job) then(ran bool) []hypervisor.Operation {
	var operations []hypervisor.Operation
	if j.powerOn(ran) {
		operations = append(operations, hypervisor.ToPowerOn)
	}
	if j.Verify {
		operations = append(operations, hypervisor.ToBackUp)
	}
	if j.spec.Isolated { // which is removed again, while it runs
		operations = append(operations, hypervisor.ToPowerOff, hypervisor.ToDestroy)
	}
	return operations
}

// powerOn reports whether the VM is to be started. ran is whether it ran before.
func (j *job) powerOn(ran bool) bool {
	power := j.Power
	if power == "" && j.InPlace != nil {
		power = PowerAsBefore
	}
	switch power {
	case PowerOn:
		return true
	case PowerOff:
		return false
	case PowerAsBefore:
		return ran
	default:
		return j.manifest.VM.PowerState == string(hypervisor.PoweredOn)
	}
}
