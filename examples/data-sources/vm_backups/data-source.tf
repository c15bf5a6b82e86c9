# Backups of a virtual machine, which may be gone. No hypervisor is needed.
data "vm_backups" "web01" {
  vm              = "web01"
  min_consistency = "crash"
}

output "backups" {
  value = { for b in data.vm_backups.web01.backups : b.id => b.created_at }
}
