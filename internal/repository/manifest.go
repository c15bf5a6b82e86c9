package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
)

// SchemaVersion is the version of backup.json that this package writes. A reader refuses newer ones.
const SchemaVersion = 1

// RetentionGoverned is the Manifest.Retention of a restore point that a retention policy may remove. Any other
// value pins it, none at all too.
const RetentionGoverned = "governed"

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
	Transport       string            `json:"transport"`        // of all disks, in order, with commas
	Incremental     bool              `json:"incremental"`      // of at least one disk only a part was read
	Parent          ID                `json:"parent,omitempty"` // the newest of the disks' parents
	Config          ConfigFile        `json:"config"`
	Disks           []Disk            `json:"disks"`
	Excluded        []ExcludedDisk    `json:"excluded,omitempty"`
	Warnings        []string          `json:"warnings,omitempty"`
	Retention       string            `json:"retention,omitempty"`
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
	File      string      `json:"file"`             // raw image in the restore point
	Hashes    string      `json:"hashes,omitempty"` // hashes of its blocks, without which it is no base
	Digest    disk.Digest `json:"digest"`
	ChunkSize int64       `json:"chunk_size"` // bytes
	DataBytes int64       `json:"data_bytes"` // bytes in chunks that are not all zero

	// Tracking is the hypervisor's token of the disk at this point in time, by which it can tell what changed
	// since. Empty: changes were not tracked.
	Tracking        string `json:"tracking,omitempty"`
	Transport       string `json:"transport,omitempty"`        // the way in which it was read
	TransportReason string `json:"transport_reason,omitempty"` // why in no better way

	// Parent is the restore point that unread parts were taken over from. Empty: all of the disk was read.
	Parent       ID    `json:"parent,omitempty"`
	Incrementals int   `json:"incrementals,omitempty"`  // how many times in a row not all of it was read
	ChangedBytes int64 `json:"changed_bytes,omitempty"` // in the areas that changed since the parent
	ReadBytes    int64 `json:"read_bytes"`              // read from the hypervisor
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

// ExcludedKeys lists the keys of the disks that were left out, with commas.
func (m *Manifest) ExcludedKeys() string {
	keys := make([]string, len(m.Excluded))
	for i, d := range m.Excluded {
		keys[i] = d.Key
	}
	slices.Sort(keys)
	return strings.Join(keys, ",")
}

// maxFileName is the longest name of a file in bytes that every file system takes.
const maxFileName = 255

// Validate reports what makes m impossible to commit or to restore from.
func (m *Manifest) Validate() error {
	switch {
	case m.SchemaVersion != SchemaVersion:
		return fmt.Errorf("manifest: schema version %d instead of %d", m.SchemaVersion, SchemaVersion)
	case m.VM.Name == "", m.VM.Path == "", m.VM.Server == "":
		return fmt.Errorf("manifest: the name %q, path %q or server %q of the virtual machine is missing",
			m.VM.Name, m.VM.Path, m.VM.Server)
	case m.CreatedAt.IsZero():
		return errors.New("manifest: the time is missing")
	case consistencyRank(m.Consistency) == 0:
		return fmt.Errorf("manifest: unknown consistency %q", m.Consistency)
	case m.Parent != "" && !m.Parent.valid():
		return fmt.Errorf("manifest: %q is not the ID of a restore point", string(m.Parent))
	}
	names := map[string]bool{manifestFile: true}
	take := func(name string) error {
		if err := checkFileName(name); err != nil {
			return err
		}
		if names[name] {
			return fmt.Errorf("manifest: two files with the name %q", name)
		}
		names[name] = true
		return nil
	}
	for _, name := range []string{m.Config.File, m.Config.NVRAM} {
		if name == "" {
			continue
		}
		if err := take(name); err != nil {
			return err
		}
	}
	var total int64
	for i := range m.Disks {
		d := &m.Disks[i]
		if err := take(d.File); err != nil {
			return err
		}
		if d.Hashes != "" {
			if err := take(d.Hashes); err != nil {
				return err
			}
		}
		if err := d.validate(); err != nil {
			return fmt.Errorf("manifest: disk %q: %w", d.File, err)
		}
		if total += d.Capacity; total < 0 {
			return errors.New("manifest: the sum of the capacities is too large")
		}
	}
	return nil
}

func (d *Disk) validate() error {
	if d.Capacity <= 0 {
		return fmt.Errorf("a capacity of %d bytes", d.Capacity)
	}
	if d.ChunkSize != ChunkSize(d.Capacity) {
		return fmt.Errorf("chunks of %d bytes for a capacity of %d", d.ChunkSize, d.Capacity)
	}
	if d.Parent != "" && !d.Parent.valid() {
		return fmt.Errorf("%q is not the ID of a restore point", string(d.Parent))
	}
	if d.DataBytes < 0 || d.DataBytes > d.Capacity {
		return fmt.Errorf("%d bytes of data in a capacity of %d", d.DataBytes, d.Capacity)
	}
	_, err := disk.ParseDigest(string(d.Digest))
	return err
}

// checkFileName sees to it that a name is that of a file in the restore point's one directory,
// wherever it may be restored to.
func checkFileName(name string) error {
	switch {
	case name == "", name == ".", name == "..", len(name) > maxFileName, !utf8.ValidString(name),
		strings.ContainsAny(name, `/\`), strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%q is not a file name", name)
	case name == manifestFile:
		return fmt.Errorf("the file name %q is taken", name)
	}
	return nil
}

// parseManifest reads backup.json. A newer schema version gives ErrSchemaVersion, whatever else is
// in it.
func parseManifest(b []byte) (*Manifest, error) {
	var version struct {
		SchemaVersion int `json:"schema_version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, err
	}
	if version.SchemaVersion > SchemaVersion {
		return nil, fmt.Errorf("%w: schema version %d, this one knows %d",
			ErrSchemaVersion, version.SchemaVersion, SchemaVersion)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return &m, nil
}
