data "vm_backup" "web01" {
  vm = "web01"
}

resource "vm_restore" "web01" {
  backup_id = data.vm_backup.web01.id

  in_place = {
    vm                  = "web01"
    shutdown_timeout    = "10m"
    keep_replaced_disks = "72h"
  }

  verify         = true
  wait_for_guest = { agent = true }
}

output "replaced_disks" {
  value = vm_restore.web01.replaced_disks
}
