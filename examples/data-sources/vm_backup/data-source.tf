# The newest backup with a tag.
data "vm_backup" "last_good" {
  vm = "web01"
  tags = {
    release = "2.4.1"
  }
}

output "last_good" {
  value = "${data.vm_backup.last_good.id}, ${data.vm_backup.last_good.consistency}-consistent"
}
