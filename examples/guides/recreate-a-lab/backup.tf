# The machines of a course as they are to be at its start. Apply it once, when they are ready.
locals {
  machines = toset([for n in range(1, 11) : format("student%02d", n)])
}

resource "vm_backup" "course" {
  for_each = local.machines
  vm       = each.key
  tags     = { course = "networking", edition = "2026-1" }
}
