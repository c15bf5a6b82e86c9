locals {
  # How old the newest verified backup of each virtual machine may be.
  protected = {
    web01 = "26h"
    db01  = "26h"
  }
}

data "vm_backup_health" "verified" {
  for_each = local.protected

  vm      = each.key
  max_age = each.value
}

check "backups_are_verified" {
  assert {
    condition     = alltrue([for h in data.vm_backup_health.verified : h.ok])
    error_message = join("\n", compact([for h in data.vm_backup_health.verified : h.reason]))
  }
}

data "vm_backup_health" "restored" {
  vm                   = "web01"
  max_age              = "768h" # 32 days
  min_verification     = "restore"
  max_verification_age = "768h"
}

check "web01_can_be_restored" {
  assert {
    condition     = data.vm_backup_health.restored.ok
    error_message = data.vm_backup_health.restored.reason
  }
}
