# terraform apply -invoke=action.vm_restore_test.web01
action "vm_restore_test" "web01" {
  config {
    vm                = "web01"
    heartbeat_timeout = "15m"
  }
}
