variable "revert" {
  description = "Whether to go back to before the upgrade."
  type        = bool
  default     = false
}

resource "vm_snapshot" "before_upgrade" {
  vm     = "web01"
  name   = "before upgrade"
  memory = true
}

# "terraform apply -var revert=true" goes back, and the virtual machine runs on from where it was. To go back once more,
# apply with -replace, or change a value of triggers.
resource "vm_restore" "before_upgrade" {
  count       = var.revert ? 1 : 0
  snapshot_id = vm_snapshot.before_upgrade.id
}
