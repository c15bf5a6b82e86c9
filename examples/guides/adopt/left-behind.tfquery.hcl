list "vm_snapshot" "left_behind" {
  provider = vm

  config {
    temporary = true
  }
}
