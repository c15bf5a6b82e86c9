import {
  to = vm_snapshot_set.before_upgrade
  identity = {
    id = "5f0c3a1b9d2e4786"
  }
}
