# One moment of all tiers of an application: all snapshots or none.
resource "vm_snapshot_set" "before_upgrade" {
  name             = "before upgrade"
  description      = "Remove when the upgrade has proved itself."
  max_skew_seconds = 60

  members = [
    # Quiescing takes a while. The database's turn is first, so that the others are taken right after it.
    { vm = "db01", quiesce = { mode = "preferred" } },
    { vm = "app01", order = 1 },
    { vm = "web01", order = 1 },
  ]

  # A new value takes a new set.
  triggers = {
    release = "2.4.1"
  }
}

output "skew_seconds" {
  value = vm_snapshot_set.before_upgrade.skew_seconds
}
