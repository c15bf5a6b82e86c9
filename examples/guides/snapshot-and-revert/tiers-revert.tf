# All are stopped, the last first. Then all are reverted. Then they start, the first first.
resource "vm_restore" "back" {
  snapshot_ids   = vm_snapshot_set.before_upgrade.snapshot_ids
  power_on       = true
  wait_for_guest = { agent = true, timeout = "15m" }
}
