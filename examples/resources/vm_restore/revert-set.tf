variable "revert" {
  description = "Whether to go back to before the upgrade."
  type        = bool
  default     = false
}

# The tiers of one application, in the order in which they start.
resource "vm_snapshot_set" "before_upgrade" {
  name    = "before upgrade"
  members = [{ vm = "db01" }, { vm = "app01" }, { vm = "web01" }]
}

# All are stopped before any is reverted, and none is started before all are reverted: no tier meets another one of
# another time. Then they are started one after the other, each when the guest of the one before is up.
resource "vm_restore" "before_upgrade" {
  count          = var.revert ? 1 : 0
  snapshot_ids   = vm_snapshot_set.before_upgrade.snapshot_ids
  power_on       = true
  wait_for_guest = {}
}
