# A backup that outlives the virtual machine, the host and this configuration.
resource "vm_backup" "web01" {
  vm          = "web01" # or vsphere_virtual_machine.web01.id
  description = "Before the upgrade to 2.4.1"

  quiesce = {
    mode = "preferred"
  }

  tags = {
    release = "2.4.1"
  }

  # Only what changed since the last backup is read, and a sample of the rest to be sure.
  change_tracking = "enable"
  verify          = "sample"

  # A new value takes a new backup. The one before is retained, as long as a rule below keeps it.
  triggers = {
    release = "2.4.1"
  }

  retention = {
    keep_last    = 3
    keep_daily   = 7
    keep_weekly  = 4
    keep_monthly = 12
  }
}

output "stored_bytes" {
  value = vm_backup.web01.stored_bytes
}
