# All snapshots of the inventory that are older than a week and larger than 10 GiB.
list "vm_snapshot" "forgotten" {
  provider = vm
  limit    = 1000

  config {
    older_than        = "168h"
    larger_than_bytes = 10 * 1024 * 1024 * 1024
  }
}

# Those of one folder that were taken before an upgrade.
list "vm_snapshot" "before_upgrade" {
  provider = vm

  config {
    folder     = "/DC0/vm"
    name_regex = "^before upgrade"
  }
}

# What backups left behind that were killed.
list "vm_snapshot" "left_behind" {
  provider = vm

  config {
    temporary = true
  }
}
