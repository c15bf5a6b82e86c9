# Back to it. What web01 wrote since is lost.
resource "vm_restore" "back" {
  snapshot_id = vm_snapshot.before_upgrade.id
}
