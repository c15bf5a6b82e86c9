# The backup beside the original, with identifiers of its own.
resource "vm_restore" "copy" {
  backup_id = vm_backup.web01.id

  new_vm = {
    name     = "web01-copy"
    identity = "copy"
  }
}
