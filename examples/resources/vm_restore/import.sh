# A virtual machine that was built from a backup: the ID of the backup, and any reference to the virtual machine.
terraform import vm_restore.rehearsal 61a9e2d1bf3f6c5b0f1a7c9f4e1d2c3b:/DC0/vm/web01-rehearsal

# One that a backup was restored into.
terraform import vm_restore.web01 in_place:61a9e2d1bf3f6c5b0f1a7c9f4e1d2c3b:web01

# One that was reverted: the snapshot, by its id, or by its path as long as it exists.
terraform import vm_restore.reverted 5005a8a0-0000-4000-8000-000000000001/snapshot-12
terraform import vm_restore.reverted "web01:before upgrade"

# Several that were reverted as one thing: the snapshot_ids, in their order, with commas.
terraform import vm_restore.all 5005a8a0-0000-4000-8000-000000000001/snapshot-12,5005a8a0-0000-4000-8000-000000000002/snapshot-14
