variable "recovery_site" {
  type = object({
    server        = string
    user          = string
    thumbprint    = string
    folder        = string
    resource_pool = string
    datastore     = string
    network_map   = map(string)
  })
}

variable "recovery_password" {
  type      = string
  sensitive = true
}

# The vCenter server of the recovery site, with the same repository.
provider "vm" {
  alias = "recovery"

  vsphere = {
    server     = var.recovery_site.server
    user       = var.recovery_site.user
    password   = var.recovery_password
    thumbprint = var.recovery_site.thumbprint
  }
  repository = {}
}

# The repository alone answers this: the main site may be gone.
data "vm_backup" "web01" {
  provider = vm.recovery
  vm       = "web01"
}

resource "vm_restore" "web01" {
  provider  = vm.recovery
  backup_id = data.vm_backup.web01.id
  power_on  = true

  new_vm = {
    folder        = var.recovery_site.folder
    resource_pool = var.recovery_site.resource_pool
    datastore     = var.recovery_site.datastore
    network_map   = var.recovery_site.network_map
  }
}
