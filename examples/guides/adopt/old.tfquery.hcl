list "vm_snapshot" "old" {
  provider = vm
  limit    = 1000

  config {
    folder     = "/DC0/vm"
    older_than = "1s" # 168h: a week
  }
}

list "vm_backup" "web01" {
  provider = vm
  limit    = 1000

  config {
    vm = "web01"
  }
}
