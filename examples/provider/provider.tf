terraform {
  required_providers {
    vm = {
      source = "terraform-vm/vm"
    }
  }
}

# Everything that isn't written comes from the environment: VSPHERE_SERVER, VSPHERE_USER,
# VSPHERE_PASSWORD, VM_REPOSITORY_PATH and VM_REPOSITORY_PASSWORD.
provider "vm" {
  vsphere    = {}
  repository = {}
}
