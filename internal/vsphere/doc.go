// Package vsphere implements the port of package hypervisor on VMware vSphere: on a vCenter, or on a
// single ESXi host.
//
// A [Client] is one login. It is shared by everything that runs at the same time:
//
//   - Reads of many objects go out together: while one call is under way, further ones queue and
//     leave as a single call (inventory_read.go).
//   - Waiting for tasks and power states goes through one property collector that only the client's
//     watcher uses (task_watch.go, task.go). The default property collector of a session is never waited on,
//     since waiters that share it swallow one another's updates.
//   - Operations that change a VM are serialised per VM (limits.go), and tasks of others are waited out.
//   - An expired session is renewed once for all callers (session.go). Only calls that the server
//     surely didn't act on, and calls that only read, are repeated.
//
// Handles are values of managed object references: a VMID is "vm-42", a SnapshotID "snapshot-7".
package vsphere
