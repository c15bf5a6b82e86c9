# What would go, and how much space that frees: terraform apply -invoke=action.vm_backup_prune.look
action "vm_backup_prune" "look" {
  config {
    vm        = "web01"
    retention = { keep_last = 3 }
    dry_run   = true
  }
}

# terraform apply -invoke=action.vm_backup_prune.web01
action "vm_backup_prune" "web01" {
  config {
    vm        = "web01"
    retention = { keep_last = 3 }
  }
}
