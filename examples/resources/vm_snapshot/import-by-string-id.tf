import {
  to = vm_snapshot.before_upgrade
  id = "web01:before upgrade"
}
