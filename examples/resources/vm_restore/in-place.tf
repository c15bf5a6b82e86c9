resource "vm_backup" "web01" {
  vm = "web01"
}

# Into the virtual machine that was backed up. It runs on while the disks are written, and is down only while they are
# exchanged.
resource "vm_restore" "web01" {
  backup_id = vm_backup.web01.id

  in_place = {
    keep_replaced_disks = "72h" # time to look at what was there before
    shutdown_timeout    = "10m"
  }

  verify = true
  wait_for_guest = {
    timeout = "15m"
  }
}

output "replaced_disks" {
  value = vm_restore.web01.replaced_disks[*].path
}
