package lab

import "github.com/vmware/govmomi/vim25/types"

// leases are the leases that clients hold.
type leases struct{}

// installTransfers registers the HTTP side of leases and of datastores with the simulator's service.
func (l *Lab) installTransfers() {}

// leaseHolding says whether a lease holds an object.
func (l *Lab) leaseHolding(types.ManagedObjectReference) bool { return false }

// leaseStatus lists the open leases.
func (l *Lab) leaseStatus() []LeaseStatus { return []LeaseStatus{} }
