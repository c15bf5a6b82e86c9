data "vm_backups" "web01" {
  vm              = "web01"
  min_consistency = "filesystem"
  depends_on      = [vm_backup.before] # look again after a new one
}

# A warning of every plan and apply as long as there is no backup of the last 24 hours.
check "recent_backup" {
  assert {
    condition = anytrue([
      for b in data.vm_backups.web01.backups : timecmp(b.created_at, timeadd(plantimestamp(), "-24h")) > 0
    ])
    error_message = "There is no backup of web01 of the last 24 hours that is at least filesystem-consistent."
  }
}
