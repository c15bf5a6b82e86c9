# By any of its snapshots, which name all the others: whatever the vm argument takes, and the hypervisor's ID of the
# snapshot, or its path.
terraform import vm_snapshot_set.before_upgrade web01/snapshot-12
terraform import vm_snapshot_set.before_upgrade "web01:before upgrade"

# By its ID, which is in the descriptions of its snapshots.
terraform import vm_snapshot_set.before_upgrade 5f0c3a1b9d2e4786
