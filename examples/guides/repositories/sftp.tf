# VM_REPOSITORY_SFTP_PRIVATE_KEY_FILE is in the environment, and the server's key in ~/.ssh/known_hosts.
provider "vm" {
  vsphere = {}
  repository = {
    sftp = {
      host = "backup.example.com"
      user = "backup"
      path = "/srv/backups/vm"
    }
  }
}
