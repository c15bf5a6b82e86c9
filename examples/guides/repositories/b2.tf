# B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY are in the environment.
provider "vm" {
  vsphere = {}
  repository = {
    b2 = {
      bucket = "example-backups"
      prefix = "vm/"
    }
  }
}
