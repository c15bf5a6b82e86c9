import {
  to = vm_restore.rehearsal
  identity = {
    id        = "5005a8a0-0000-4000-8000-000000000001"
    backup_id = "61a9e2d1bf3f6c5b0f1a7c9f4e1d2c3b"
  }
}
