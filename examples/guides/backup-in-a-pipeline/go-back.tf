variable "go_back_to" {
  description = "The release before whose deployment web01 was as it shall be again."
  type        = string
}

data "vm_backup" "good" {
  vm   = "web01"
  tags = { release = var.go_back_to }
}

resource "vm_restore" "web01" {
  backup_id = data.vm_backup.good.id
  in_place  = {}
}
