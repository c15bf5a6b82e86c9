import {
  to = vm_snapshot.before_upgrade
  identity = {
    vm_instance_uuid = "5005a8a0-0000-4000-8000-000000000001"
    snapshot_id      = "snapshot-12"
  }
}
