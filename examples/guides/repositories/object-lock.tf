provider "vm" {
  vsphere = {}
  repository = {
    s3 = {
      bucket = "backups"
      prefix = "vm/"
      object_lock = {
        mode = "compliance"
        days = 30
      }
    }
  }
}
