# One moment of all tiers: all snapshots or none.
resource "vm_snapshot_set" "before_upgrade" {
  name             = "before upgrade"
  max_skew_seconds = 60

  # In the order in which the tiers start: each needs those above it.
  members = [
    { vm = "db01" },
    { vm = "app01" },
    { vm = "web01" },
  ]
}
