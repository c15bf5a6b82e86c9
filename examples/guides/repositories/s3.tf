# AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION are in the environment; so is AWS_ENDPOINT_URL_S3 for a service
# that isn't Amazon's, and VM_REPOSITORY_PASSWORD.
provider "vm" {
  vsphere = {}
  repository = {
    s3 = {
      bucket = "backups"
      prefix = "vm/"
    }
    limits = {
      upload_mib_per_second = 200
    }
  }
}
