package hypervisor

import (
	"fmt"
	"slices"
	"strings"
)

// MaxSnapshotDepth is the deepest chain of snapshots that a VM can have.
const MaxSnapshotDepth = 32

// Answers reports whether name is the disk's: its label ("Hard disk 2"), its address ("scsi0:1") or its
// UUID.
func (d Disk) Answers(name string) bool {
	return name != "" &&
		(d.Label == name || strings.EqualFold(d.Address, name) || strings.EqualFold(d.UUID, name))
}

// FindDisk is the index of the disk that answers to name, -1 if none does.
func FindDisk(disks []Disk, name string) int {
	return slices.IndexFunc(disks, func(d Disk) bool { return d.Answers(name) })
}

// ListDisks names disks, for people to choose from.
func ListDisks(disks []Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	lines := make([]string, len(disks))
	for i, d := range disks {
		lines[i] = fmt.Sprintf("%q (%s)", d.Label, d.Address)
	}
	return strings.Join(lines, ", ")
}
