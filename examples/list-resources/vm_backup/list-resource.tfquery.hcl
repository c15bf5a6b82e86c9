# The backups of one virtual machine, which may be gone.
list "vm_backup" "web01" {
  provider = vm
  limit    = 1000

  config {
    vm = "web01"
  }
}

# All backups of 2026 of the production environment that hold the file systems at rest.
list "vm_backup" "production" {
  provider = vm

  config {
    after           = "2026-01-01T00:00:00Z"
    before          = "2027-01-01T00:00:00Z"
    min_consistency = "filesystem"
    tags            = { environment = "production" }
  }
}
