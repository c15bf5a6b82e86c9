data "vm_backup_health" "web01" {
  vm               = "web01"
  max_age          = "26h"
  min_verification = "index"
}

check "backup_of_web01" {
  assert {
    condition     = data.vm_backup_health.web01.ok
    error_message = data.vm_backup_health.web01.reason
  }
}
