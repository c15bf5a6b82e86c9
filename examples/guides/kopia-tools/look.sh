kopia ls -l "$BACKUP_ID"                                        # what is in a backup
kopia snapshot restore "$BACKUP_ID/backup.json" backup.json     # which disk is in which file, with its digest; what was left out
