import {
  to = vm_restore.rehearsal
  id = "61a9e2d1bf3f6c5b0f1a7c9f4e1d2c3b:web01-rehearsal"
}
