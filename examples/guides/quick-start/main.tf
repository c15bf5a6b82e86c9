terraform {
  required_providers {
    vm = {
      source = "terraform-vm/vm"
    }
  }
}

provider "vm" {
  vsphere    = {}
  repository = {}
}

# Beside the virtual machine: for the next hours.
resource "vm_snapshot" "before_change" {
  vm   = "web01"
  name = "before change"
}

# In the repository: for whatever happens to the virtual machine.
resource "vm_backup" "web01" {
  vm = "web01"
}
