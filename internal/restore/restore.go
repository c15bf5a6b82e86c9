// Package restore builds virtual machines from restore points. A VM in the making can't be started;
// it becomes startable when all of its disks were written and their content is what was backed up.
// A restore that fails or is cancelled leaves nothing.
package restore

import (
	"errors"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// ErrRequest is what a request gives that can't be carried out as it is written.
var ErrRequest = errors.New("invalid restore request")

// A Hypervisor is what this package needs of one.
type Hypervisor interface {
	hypervisor.Finder
	hypervisor.PowerController
	hypervisor.Restorer
}

// Power says whether a restored VM is started.
type Power string

// What can be asked for. The zero value means PowerAsCaptured.
const (
	PowerAsCaptured Power = "as_captured" // on if it was on when the backup was taken
	PowerOn         Power = "on"
	PowerOff        Power = "off"
)

// A Request describes a restore.
type Request struct {
	BackupID repository.ID

	// NewVM says where to and as whom. Nil: where it was, with its original identity.
	NewVM *NewVM

	Power Power
}

// NewVM describes the VM to make. Names that are empty mean the captured ones.
type NewVM struct {
	Name     string
	Identity hypervisor.Identity // empty: hypervisor.IdentityOriginal

	Folder         string            // inventory path
	ResourcePool   string            // inventory path or name
	Host           string            // empty: the cluster chooses
	Datastore      string            // for the VM and every disk that DiskDatastores doesn't name
	DiskDatastores map[string]string // by the disk's label, address or UUID
	NetworkMap     map[string]string // captured name to target name

	// ConnectNetworks says whether network adapters connect at power-on. Nil: those of an original
	// do, those of a copy don't, because a copy has the addresses that its guest is configured with.
	ConnectNetworks *bool
}

// A Result is a VM that was restored.
type Result struct {
	VM            *hypervisor.VM
	Disks         []Disk
	RestoredBytes int64 // bytes of data that were written
	Warnings      []string
	CompletedAt   time.Time
}

// A Disk is a disk that was restored.
type Disk struct {
	hypervisor.Disk
	RestoredBytes int64 // bytes of data that were written
	Digest        string
}
