# The newest snapshot of that name, whoever took it.
data "vm_snapshot" "before_upgrade" {
  vm     = "web01"
  name   = "before upgrade"
  newest = true
}

output "before_upgrade" {
  value = "${data.vm_snapshot.before_upgrade.id}, taken at ${data.vm_snapshot.before_upgrade.created_at}"
}
