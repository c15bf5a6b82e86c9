# A snapshot that somebody else took.
data "vm_snapshot" "by_hand" {
  vm   = "web01"
  path = "before upgrade" # the names from the root to the snapshot, with slashes between
}

resource "vm_restore" "back" {
  snapshot_id = data.vm_snapshot.by_hand.id
  power_on    = false
}
