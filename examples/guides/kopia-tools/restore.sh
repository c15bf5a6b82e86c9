kopia snapshot restore --write-sparse-files "$BACKUP_ID" web01                              # everything
kopia snapshot restore --write-sparse-files "$BACKUP_ID/disk-2000.raw" web01-system.raw     # one disk
