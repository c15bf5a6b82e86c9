# terraform apply -invoke=action.vm_consolidate.web01
action "vm_consolidate" "web01" {
  config {
    vm = "web01"
  }
}
