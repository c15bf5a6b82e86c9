# One disk is often enough. A virtual machine without its system disk isn't started.
data "vm_backup" "db01" {
  vm = "db01"
}

resource "vm_restore" "data_disk" {
  backup_id  = data.vm_backup.db01.id
  only_disks = ["Hard disk 2"]
  power_on   = false

  new_vm = {
    name     = "db01-data-of-last-night"
    identity = "copy"
  }
}
