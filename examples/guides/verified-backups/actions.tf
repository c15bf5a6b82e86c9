# Every night, after the backup: terraform apply -invoke=action.vm_backup_verify.web01
action "vm_backup_verify" "web01" {
  config {
    vm = "web01"
  }
}

# Every month: terraform apply -invoke=action.vm_restore_test.web01
action "vm_restore_test" "web01" {
  config {
    vm                = "web01"
    heartbeat_timeout = "15m"
    screenshot_file   = "web01.png"
  }
}
