variable "day" {
  type = string
}

resource "vm_backup" "web01" {
  vm       = "web01"
  triggers = { day = var.day }
  retention = {
    keep_daily = 14
  }
}
