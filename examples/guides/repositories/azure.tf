# AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN is in the environment.
provider "vm" {
  vsphere = {}
  repository = {
    azure = {
      account   = "examplebackups"
      container = "vm"
    }
  }
}
