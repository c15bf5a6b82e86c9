# terraform apply -invoke=action.vm_backup_verify.web01
action "vm_backup_verify" "web01" {
  config {
    vm = "web01"
  }
}

# Seconds for each backup: terraform apply -invoke=action.vm_backup_verify.all_by_index
action "vm_backup_verify" "all_by_index" {
  config {
    vm      = "web01"
    backups = "all"
    level   = "index"
  }
}
