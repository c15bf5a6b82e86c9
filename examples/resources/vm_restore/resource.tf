resource "vm_backup" "web01" {
  vm = "web01"
}

# A copy beside the original, with identifiers and addresses of its own, not connected to any network.
resource "vm_restore" "rehearsal" {
  backup_id = vm_backup.web01.id
  power_on  = true

  new_vm = {
    name             = "web01-rehearsal"
    identity         = "copy"
    connect_networks = false
  }
}

output "rehearsal" {
  value = vm_restore.rehearsal.vm_path
}
