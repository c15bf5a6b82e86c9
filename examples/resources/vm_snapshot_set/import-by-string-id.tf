import {
  to = vm_snapshot_set.before_upgrade
  id = "web01:before upgrade"
}
