// Package lab is a vCenter for one machine: govmomi's simulator with a data plane of its own. Its
// disks hold bytes, its snapshots freeze them, its leases stream them, and where a real vCenter
// refuses, it refuses.
package lab
