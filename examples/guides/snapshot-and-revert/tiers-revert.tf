# All are stopped. When they are, all are reverted. When they are, they start one after the other, in this order.
resource "vm_restore" "back" {
  snapshot_ids   = vm_snapshot_set.before_upgrade.snapshot_ids
  power_on       = true
  wait_for_guest = { agent = true, timeout = "15m" }
}
