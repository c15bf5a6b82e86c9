variable "isolated_network" {
  description = "A network without an uplink."
  type        = string
}

data "vm_backup" "web01" {
  vm = "web01"
}

resource "vm_restore" "look" {
  backup_id = data.vm_backup.web01.id
  power_on  = true

  new_vm = {
    name             = "web01-look"
    identity         = "copy"
    connect_networks = false
    network_map      = { "VM Network" = var.isolated_network }
  }
}
