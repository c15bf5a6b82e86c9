# The restored virtual machine as vSphere has it.
data "vm_machine" "web01" {
  vm = vm_restore.web01.vm_uuid
}

check "as_before" {
  assert {
    condition     = data.vm_machine.web01.uuid == data.vm_backup.web01.vm_uuid
    error_message = "web01 has another BIOS UUID than when the backup was taken."
  }

  assert {
    condition     = data.vm_machine.web01.instance_uuid == data.vm_backup.web01.vm_instance_uuid
    error_message = "web01 has another instance UUID than when the backup was taken."
  }

  assert {
    condition     = { for d in data.vm_machine.web01.disks : d.address => d.uuid } == { for d in data.vm_backup.web01.disks : d.address => d.uuid }
    error_message = "The disks of web01 have other UUIDs than when the backup was taken."
  }
}
