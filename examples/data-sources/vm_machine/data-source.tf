data "vm_machine" "web01" {
  vm = "web01"
}

# What would stop a backup.
output "obstacles" {
  value = [for o in data.vm_machine.web01.obstacles : "${o.reason} ${o.remedy}"]
}
