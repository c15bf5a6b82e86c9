variable "release" {
  type = string
}

# A new release takes a new backup. The backup of the release before stays in the repository.
resource "vm_backup" "before" {
  vm          = "web01"
  description = "Before release ${var.release}"
  tags        = { release = var.release }
  triggers    = { release = var.release }

  # Without file systems at rest there is no backup, and without a backup there is no deployment.
  quiesce = {
    mode = "required"
  }

  timeouts {
    create = "2h" # more than it takes
  }
}

# The change. Put whatever deploys the release here.
resource "terraform_data" "deployment" {
  input      = var.release
  depends_on = [vm_backup.before]
}
