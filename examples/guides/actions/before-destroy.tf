variable "wanted" {
  default = true
}

action "vm_backup_run" "last" {
  config {
    vm          = "web01"
    description = "The last one before it was destroyed"
    tags        = { why = "destroy" }
  }
}

# Stands for the resource that manages the virtual machine, such as vsphere_virtual_machine.
resource "terraform_data" "web01" {
  count = var.wanted ? 1 : 0

  lifecycle {
    action_trigger {
      events     = [before_destroy]
      actions    = [action.vm_backup_run.last]
      on_failure = halt
    }
  }
}
