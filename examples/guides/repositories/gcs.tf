# GS_ACCESS_KEY_ID and GS_SECRET_ACCESS_KEY are in the environment.
provider "vm" {
  vsphere = {}
  repository = {
    gcs = {
      bucket = "example-backups"
      prefix = "vm/"
    }
  }
}
