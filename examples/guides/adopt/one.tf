# A snapshot that somebody took by hand: the virtual machine, and the path of the snapshot.
import {
  to = vm_snapshot.before_upgrade
  id = "web01:before upgrade"
}

resource "vm_snapshot" "before_upgrade" {
  vm          = "web01"
  name        = "before upgrade"
  description = "by hand"
}

# A backup that is in the repository: its ID.
variable "backup_id" {
  type = string
}

import {
  to = vm_backup.web01
  id = var.backup_id
}

resource "vm_backup" "web01" {
  vm = "web01"
}
