data "vm_backup" "web01" {
  vm = "web01" # the name when the backup was taken, or a UUID
}

resource "vm_restore" "web01" {
  backup_id = data.vm_backup.web01.id
}
