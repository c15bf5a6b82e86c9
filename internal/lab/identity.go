package lab

import (
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// parseUUID reads a UUID in any form that the API takes.
func parseUUID(s string) (uuid.UUID, error) {
	return uuid.Parse(strings.NewReplacer(" ", "", "-", "").Replace(s))
}

// enlist notes a VM's identities, so that others don't get the same. The VM's lock is held.
func (l *Lab) enlist(vm *simulator.VirtualMachine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delist(vm.Self)
	l.instances[vm.Config.InstanceUuid] = vm.Self
	for _, device := range vm.Config.Hardware.Device {
		if card, ok := device.(types.BaseVirtualEthernetCard); ok {
			l.macs[card.GetVirtualEthernetCard().MacAddress] = vm.Self
		}
	}
}

// delist forgets a VM's identities. l.mu is held.
func (l *Lab) delist(vm types.ManagedObjectReference) {
	for id, owner := range l.instances {
		if owner == vm {
			delete(l.instances, id)
		}
	}
	for mac, owner := range l.macs {
		if owner == vm {
			delete(l.macs, mac)
		}
	}
}

// instanceUUID is the instance UUID that a VM gets instead of the one that is wanted: a new one when
// none is wanted or another VM has it, as a vCenter does.
func (l *Lab) instanceUUID(vm types.ManagedObjectReference, wanted string) string {
	id, err := parseUUID(wanted)
	if err != nil {
		return uuid.NewString()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if owner, ok := l.instances[id.String()]; ok && owner != vm {
		return uuid.NewString()
	}
	return id.String()
}

// stamp gives a configuration a new change version.
func stamp(config *types.VirtualMachineConfigInfo) {
	config.Modified = time.Now()
	config.ChangeVersion = config.Modified.UTC().Format("2006-01-02T15:04:05.000000000Z")
}
