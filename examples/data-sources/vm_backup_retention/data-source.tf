# What these rules would remove, before they are written into a vm_backup.
data "vm_backup_retention" "web01" {
  vm = "web01"

  retention = {
    keep_last   = 3
    keep_daily  = 7
    keep_weekly = 4
  }

  measure_space = true
}

output "would_go" {
  value = data.vm_backup_retention.web01.prune_ids
}

output "would_free_bytes" {
  value = data.vm_backup_retention.web01.freed_bytes
}
