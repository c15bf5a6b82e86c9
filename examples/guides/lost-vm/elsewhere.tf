variable "datastore" {
  type = string
}

variable "network_map" {
  description = "Networks that take the place of others, by the name in the backup."
  type        = map(string)
}

data "vm_backup" "web01" {
  vm = "web01"
}

resource "vm_restore" "web01" {
  backup_id = data.vm_backup.web01.id

  new_vm = {
    datastore   = var.datastore
    network_map = var.network_map
  }
}
