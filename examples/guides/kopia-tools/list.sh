kopia snapshot list --all                                     # every backup, by server and inventory path
kopia snapshot list --all --tags terraform.vm-name:web01      # those of one virtual machine
kopia snapshot list --all --tags release:2.4.1                # those with a tag of yours
kopia snapshot list --all --json                              # for scripts; "id" is what vm_backup has as id
