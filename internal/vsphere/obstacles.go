package vsphere

import (
	"fmt"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// obstacles lists what stands in the way of a snapshot or a backup of a VM. The sources are the
// limitations of snapshots in "vSphere Virtual Machine Administration", and the faults of
// CreateSnapshot_Task in the API reference.
func obstacles(m *mo.VirtualMachine) []hypervisor.Obstacle {
	config := m.Config
	if config == nil {
		return nil
	}
	var out []hypervisor.Obstacle
	if config.Template {
		out = append(out, hypervisor.Obstacle{
			Kind: hypervisor.ObstacleTemplate, BlocksSnapshot: true,
			Reason: "The VM is a template, and templates have no snapshots.",
			Remedy: "Convert it to a virtual machine, or clone it and use the clone.",
		})
	}
	if faultTolerant(m) {
		out = append(out, hypervisor.Obstacle{
			Kind: hypervisor.ObstacleFaultTolerance, BlocksSnapshot: true,
			Reason: "Fault Tolerance protects the VM, and such VMs have no snapshots.",
			Remedy: "Turn Fault Tolerance off for this VM, or suspend it for the time of the operation.",
		})
	}
	if locked := config.Flags.SnapshotLocked; locked != nil && *locked {
		out = append(out, hypervisor.Obstacle{
			Kind: hypervisor.ObstacleLocked, BlocksSnapshot: true,
			Reason: "The VM's snapshots are locked (flags.snapshotLocked).",
			Remedy: "Unlock them in the VM's settings.",
		})
	}
	if config.KeyId != nil {
		out = append(out, hypervisor.Obstacle{
			Kind:   hypervisor.ObstacleEncryption,
			Reason: "The VM is encrypted, and what the server hands out of it could not be restored as it was.",
			Remedy: "Decrypt the VM (storage policy without encryption), or protect it with a tool that has its keys.",
		})
	}
	return append(out, deviceObstacles(config.Hardware.Device)...)
}

// faultTolerant tells whether Fault Tolerance is on, as seen from either VM of a pair.
func faultTolerant(m *mo.VirtualMachine) bool {
	state := m.Runtime.FaultToleranceState
	return m.Config.FtInfo != nil ||
		state != "" && state != types.VirtualMachineFaultToleranceStateNotConfigured
}

func deviceObstacles(devices object.VirtualDeviceList) []hypervisor.Obstacle {
	var out []hypervisor.Obstacle
	for _, device := range devices {
		label := deviceLabel(device)
		switch d := device.(type) {
		case types.BaseVirtualSCSIController:
			if mode := d.GetVirtualSCSIController().SharedBus; mode != "" && mode != types.VirtualSCSISharingNoSharing {
				out = append(out, sharedBus(label, string(mode)))
			}
		case *types.VirtualNVMEController:
			if mode := d.SharedBus; mode != "" && mode != string(types.VirtualNVMEControllerSharingNoSharing) {
				out = append(out, sharedBus(label, mode))
			}
		case *types.VirtualTPM:
			out = append(out, hypervisor.Obstacle{
				Kind: hypervisor.ObstacleTPM, Device: label,
				Reason: "The VM has a virtual TPM, whose secrets no backup can hold; a restored VM could not unlock its disks.",
				Remedy: "Suspend or remove disk encryption in the guest and remove the virtual TPM, or protect the VM from within.",
			})
		}
	}
	for _, d := range orderedDisks(devices) {
		out = append(out, diskObstacles(d)...)
	}
	return out
}

func sharedBus(label, mode string) hypervisor.Obstacle {
	return hypervisor.Obstacle{
		Kind: hypervisor.ObstacleSharedBus, Device: label, BlocksSnapshot: true,
		Reason: fmt.Sprintf("The controller shares its bus with other VMs (%s), which snapshots don't allow.", mode),
		Remedy: "Set the controller's bus sharing to none.",
	}
}

func diskObstacles(d *types.VirtualDisk) []hypervisor.Obstacle {
	label, key := deviceLabel(d), diskKey(d)
	backing := describeBacking(d.Backing)
	if backing.physical {
		return []hypervisor.Obstacle{physicalRDM(label)}
	}
	var out []hypervisor.Obstacle
	if backing.sharing == string(types.VirtualDiskSharingSharingMultiWriter) {
		out = append(out, hypervisor.Obstacle{
			Kind: hypervisor.ObstacleMultiWriter, Device: label, BlocksSnapshot: true,
			Reason: "The disk may be written by several VMs at a time (multi-writer), which snapshots don't allow.",
			Remedy: "Set the disk's sharing to none.",
		})
	}
	if backing.independent() {
		out = append(out, hypervisor.Obstacle{
			Kind: hypervisor.ObstacleIndependent, Device: label, Disk: key,
			Reason: fmt.Sprintf("The disk is independent (%s), and snapshots leave such disks out.", backing.mode),
			Remedy: "Make the disk dependent, or exclude it.",
		})
	}
	if backing.encrypted {
		out = append(out, hypervisor.Obstacle{
			Kind: hypervisor.ObstacleEncryption, Device: label, Disk: key,
			Reason: "The disk is encrypted, and what the server hands out of it could not be restored as it was.",
			Remedy: "Decrypt the disk (storage policy without encryption), or exclude it.",
		})
	}
	return out
}

func physicalRDM(label string) hypervisor.Obstacle {
	return hypervisor.Obstacle{
		Kind: hypervisor.ObstaclePhysicalRDM, Device: label, BlocksSnapshot: true,
		Reason: "The disk is a raw device in physical compatibility mode, of which there are no snapshots.",
		Remedy: "Map the device in virtual compatibility mode, or detach it.",
	}
}
