# The vCenter server of the main site, and a repository that is not on its storage.
provider "vm" {
  vsphere    = {} # VSPHERE_SERVER, VSPHERE_USER, VSPHERE_PASSWORD
  repository = {} # VM_REPOSITORY_PATH, VM_REPOSITORY_PASSWORD
}

resource "vm_backup" "web01" {
  vm = "web01"
}
