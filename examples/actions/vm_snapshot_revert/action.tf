# terraform apply -invoke=action.vm_snapshot_revert.undo
action "vm_snapshot_revert" "undo" {
  config {
    vm       = "web01"
    name     = "before-update" # the newest that vm_snapshot_create took with this name
    power_on = true
  }
}
