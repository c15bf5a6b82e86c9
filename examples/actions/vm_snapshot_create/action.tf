# terraform apply -invoke=action.vm_snapshot_create.by_hand
action "vm_snapshot_create" "by_hand" {
  config {
    vm          = "web01"
    name        = "by-hand"
    description = "Before somebody looks into it"
    quiesce     = { mode = "preferred" }
  }
}
