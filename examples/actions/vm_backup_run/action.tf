# terraform apply -invoke=action.vm_backup_run.nightly
action "vm_backup_run" "nightly" {
  config {
    vm        = "web01"
    quiesce   = { mode = "preferred" }
    tags      = { job = "nightly" }
    retention = { keep_daily = 7, keep_weekly = 4, keep_monthly = 12 }
  }
}
