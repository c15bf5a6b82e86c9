# By the ID of the snapshot: whatever the vm argument takes, and the hypervisor's ID of the snapshot.
terraform import vm_snapshot.before_upgrade web01/snapshot-12

# By the path of the snapshot: the names of the snapshots from the root to it.
terraform import vm_snapshot.before_upgrade "web01:before upgrade"
