# The state of the virtual machine before the change, with what is in its memory.
resource "vm_snapshot" "before_upgrade" {
  vm          = "web01" # or vsphere_virtual_machine.web01.id
  name        = "before upgrade"
  description = "Remove when the upgrade has proved itself."
  memory      = true
  max_age     = "72h" # from then on, every plan warns
}
