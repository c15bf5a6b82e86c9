package repository

import (
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// SchemaVersion is the version of backup.json that this package writes. A reader refuses newer ones.
const SchemaVersion = 1

// A Manifest is the content of backup.json: everything about a restore point that is not disk data.
// Names of its fields are part of the repository format.
type Manifest struct {
	SchemaVersion   int               `json:"schema_version"`
	ProviderVersion string            `json:"provider_version"`
	CreatedAt       time.Time         `json:"created_at"` // the point in time of the disks
	Description     string            `json:"description,omitempty"`
	Tags            map[string]string `json:"tags,omitempty"`
	VM              VM                `json:"vm"`
	Consistency     string            `json:"consistency"`
	Transport       string            `json:"transport"`
	Incremental     bool              `json:"incremental"`
	Parent          ID                `json:"parent,omitempty"`
	Config          ConfigFile        `json:"config"`
	Disks           []Disk            `json:"disks"`
	Excluded        []ExcludedDisk    `json:"excluded,omitempty"`
	Warnings        []string          `json:"warnings,omitempty"`
	ReadBytes       int64             `json:"read_bytes"`   // read from the hypervisor
	StoredBytes     int64             `json:"stored_bytes"` // added to the repository, after compression
	Duration        time.Duration     `json:"duration_ns"`
}

// VM identifies the virtual machine of a restore point.
type VM struct {
	Name            string `json:"name"`
	Path            string `json:"path"`
	BIOSUUID        string `json:"bios_uuid"`
	InstanceUUID    string `json:"instance_uuid"`
	Server          string `json:"server"` // identity of the hypervisor's server
	GuestID         string `json:"guest_id"`
	PowerState      string `json:"power_state"`
	HardwareVersion string `json:"hardware_version"`
	CPUs            int    `json:"cpus"`
	MemoryBytes     int64  `json:"memory_bytes"`
}

// ConfigFile names the files that hold the captured configuration.
type ConfigFile struct {
	Format string `json:"format"`
	File   string `json:"file"`
	NVRAM  string `json:"nvram,omitempty"`
}

// Disk is one disk of a restore point.
type Disk struct {
	Key       string      `json:"key"`
	Label     string      `json:"label"`
	Address   string      `json:"address"`
	UUID      string      `json:"uuid,omitempty"`
	Capacity  int64       `json:"capacity"` // bytes
	Datastore string      `json:"datastore"`
	Path      string      `json:"path"`
	File      string      `json:"file"` // raw image in the restore point
	Digest    disk.Digest `json:"digest"`
	ChunkSize int64       `json:"chunk_size"` // bytes
	DataBytes int64       `json:"data_bytes"` // bytes in chunks that are not all zero
	Tracking  string      `json:"tracking,omitempty"`
}

// ExcludedDisk is a disk that the VM has and the restore point doesn't.
type ExcludedDisk struct {
	Key      string `json:"key"`
	Label    string `json:"label"`
	Address  string `json:"address"`
	UUID     string `json:"uuid,omitempty"`
	Capacity int64  `json:"capacity"`
	Reason   string `json:"reason"`
}

// SizeBytes is the sum of the capacities of the disks.
func (m *Manifest) SizeBytes() int64 {
	var n int64
	for _, d := range m.Disks {
		n += d.Capacity
	}
	return n
}
