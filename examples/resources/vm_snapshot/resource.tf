# A snapshot before a change. It is removed with the resource.
resource "vm_snapshot" "before_upgrade" {
  vm          = "web01" # or vsphere_virtual_machine.web01.id
  name        = "before upgrade"
  description = "Remove when the upgrade has proved itself."
  max_age     = "72h"

  quiesce = {
    mode    = "preferred"
    timeout = "10m"
  }

  # A new value takes a new snapshot.
  triggers = {
    release = "2.4.1"
  }

  timeouts {
    create = "15m"
  }
}

output "consistency" {
  value = vm_snapshot.before_upgrade.consistency
}
