package backup

import (
	"slices"
	"strings"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/quiesce"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// Names of the files of a restore point, beside its manifest.
const (
	configFile = "config.json"
	nvramFile  = "nvram.bin"
)

func diskFile(key hypervisor.DiskKey) string { return "disk-" + string(key) + ".raw" }

// manifest describes what was captured, as of the point in time.
func (b *backup) manifest(point hypervisor.PointInTime, disks []copied) *repository.Manifest {
	config, snapshot := point.Config(), point.Snapshot()
	vm := config.Summary
	snapshot.Memory = false // of a suspended VM's snapshot: the backup holds the disks alone
	m := &repository.Manifest{
		SchemaVersion:   repository.SchemaVersion,
		ProviderVersion: b.m.version,
		CreatedAt:       snapshot.CreatedAt.UTC(),
		Description:     b.Description,
		Tags:            b.Tags,
		VM: repository.VM{
			Name: vm.Name, Path: vm.Path, BIOSUUID: vm.BIOSUUID, InstanceUUID: vm.InstanceUUID, Server: vm.Server,
			GuestID: vm.GuestID, PowerState: string(vm.PowerState), HardwareVersion: vm.HardwareVersion,
			CPUs: vm.CPUs, MemoryBytes: vm.MemoryBytes,
		},
		Consistency: string(quiesce.Of(snapshot, false)),
		Config:      repository.ConfigFile{Format: config.Format, File: configFile},
		Warnings:    slices.Clone(b.warnings),
		Duration:    b.m.now().Sub(b.start),
	}
	if b.Retention != nil {
		m.Retention = repository.RetentionGoverned
	}
	var parent time.Time
	for _, c := range disks {
		m.Disks = append(m.Disks, c.disk)
		m.ReadBytes += c.disk.ReadBytes
		m.StoredBytes += c.stored
		if c.base != nil && (!m.Incremental || c.base.createdAt.After(parent)) {
			m.Incremental, m.Parent, parent = true, c.base.id, c.base.createdAt
		}
	}
	m.Transport = transports(m.Disks)
	if snapshot.CreatedAt.IsZero() { // a hypervisor that needs no snapshot may not tell
		m.CreatedAt = b.start.UTC()
	}
	if config.NVRAM != nil {
		m.Config.NVRAM = nvramFile
	}
	for _, d := range b.excluded {
		m.Excluded = append(m.Excluded, repository.ExcludedDisk{
			Key: string(d.Key), Label: d.Label, Address: d.Address, UUID: d.UUID, Capacity: d.Capacity,
			Reason: "excluded by request",
		})
	}
	return m
}

// transports lists the ways in which disks were read, each once.
func transports(disks []repository.Disk) string {
	var list []string
	for _, d := range disks {
		if !slices.Contains(list, d.Transport) {
			list = append(list, d.Transport)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}
