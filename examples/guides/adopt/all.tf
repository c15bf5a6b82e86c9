# All snapshots of a virtual machine, as they are (Terraform v1.7.0 and later).
data "vm_snapshots" "db01" {
  vm = "db01"
}

locals {
  snapshots = { for s in data.vm_snapshots.db01.snapshots : s.id => s }
}

import {
  for_each = local.snapshots
  to       = vm_snapshot.db01[each.key]
  id       = each.key
}

resource "vm_snapshot" "db01" {
  for_each    = local.snapshots
  vm          = "db01"
  name        = each.value.name
  description = each.value.description == "" ? null : each.value.description
  memory      = each.value.memory
}
