variable "revision" {
  default = "1"
}

locals {
  vm = "web01"
}

action "vm_snapshot_create" "before_update" {
  config {
    vm      = local.vm # not terraform_data.web01, which waits for the action
    name    = "before-update"
    quiesce = { mode = "preferred" }
  }
}

# terraform apply -invoke=action.vm_snapshot_revert.undo
action "vm_snapshot_revert" "undo" {
  config {
    vm       = local.vm
    name     = "before-update" # the newest of them
    power_on = true
  }
}

# Stands for the resource that manages the virtual machine, such as vsphere_virtual_machine.
resource "terraform_data" "web01" {
  input = var.revision

  lifecycle {
    action_trigger {
      events  = [before_update]
      actions = [action.vm_snapshot_create.before_update]
    }
  }
}
