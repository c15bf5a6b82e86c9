data "vm_snapshots" "web01" {
  vm = "web01"
}

# Snapshots that are older than three days.
output "old" {
  value = [
    for s in data.vm_snapshots.web01.snapshots : s.path
    if timecmp(timeadd(s.created_at, "72h"), plantimestamp()) < 0
  ]
}
