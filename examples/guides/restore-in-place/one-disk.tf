# The data disk alone. The system disk and the hardware stay as they are.
data "vm_backup" "db01" {
  vm = "db01"
}

resource "vm_restore" "db01_data" {
  backup_id  = data.vm_backup.db01.id
  only_disks = ["Hard disk 2"]

  in_place = {
    vm       = "db01"
    hardware = "keep"
  }
}
