# Ten copies of one machine.
data "vm_backup" "master" {
  vm   = "student01"
  tags = { course = "networking" }
}

resource "vm_restore" "clone" {
  for_each  = toset([for n in range(1, 11) : format("clone%02d", n)])
  backup_id = data.vm_backup.master.id

  new_vm = {
    name     = each.key
    identity = "copy"
  }
}
