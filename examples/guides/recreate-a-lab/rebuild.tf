locals {
  machines = toset([for n in range(1, 11) : format("student%02d", n)])
}

# The newest backup of each machine with these tags.
data "vm_backup" "course" {
  for_each = local.machines
  vm       = each.key
  tags     = { course = "networking", edition = "2026-1" }
}

resource "vm_restore" "course" {
  for_each  = local.machines
  backup_id = data.vm_backup.course[each.key].id
  power_on  = true

  new_vm = {
    name             = each.key
    identity         = "copy"
    connect_networks = true
  }
}

output "machines" {
  value = { for name, vm in vm_restore.course : name => vm.vm_path }
}
