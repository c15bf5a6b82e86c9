# VM_REPOSITORY_WEBDAV_PASSWORD is in the environment.
provider "vm" {
  vsphere = {}
  repository = {
    webdav = {
      url  = "https://dav.example.com/backups"
      user = "backup"
    }
  }
}
