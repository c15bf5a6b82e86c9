package hypervisor

import "github.com/terraform-vm/terraform-provider-vm/internal/disk"

// ChangeTracking says whether a hypervisor may be asked which parts of a disk changed, and switched over to
// keep count of it.
type ChangeTracking string

const (
	// TrackingUse uses change tracking where it is on. It is the default.
	TrackingUse ChangeTracking = "use"
	// TrackingEnable switches it on where it is off, which changes the VM's settings.
	TrackingEnable ChangeTracking = "enable"
	// TrackingIgnore reads every disk in full.
	TrackingIgnore ChangeTracking = "ignore"
)

// A Base is an earlier point in time of a disk, of which the caller has the content.
type Base struct {
	// Tracking is the token that the disk had then (ReadPlan). It is opaque to callers.
	Tracking string

	// Also are areas to read although they didn't change: to check that they really didn't. Nil: none.
	Also *disk.Areas
}

// A DiskRequest says what of a disk is wanted.
type DiskRequest struct {
	// Base is what the caller has. Nil, or with an empty token: the whole disk is wanted.
	Base *Base

	// Granularity is the size in bytes of the pieces that the caller stores. Areas of a plan are made of
	// them. It must be positive where there is a base.
	Granularity int64

	// Everything rules out that a read of the whole disk leaves out what the hypervisor holds for unused:
	// whoever reads it to find out what change tracking missed can't believe it that either.
	Everything bool
}

// A DiskReader reads one disk of a point in time.
type DiskReader interface {
	// Source gives the data of the disk in the areas of the plan.
	disk.Source

	// Plan says what is read, and how. It doesn't change.
	Plan() ReadPlan
}

// A ReadPlan says how a disk is read.
type ReadPlan struct {
	// Transport names the way in which data is read: "export", "datastore".
	Transport string

	// TransportReason is a sentence that says why it isn't one that was preferred. Empty: it is.
	TransportReason string

	// Areas are those that the reader gives: all that changed since the base, and those that were asked
	// for besides. Outside of them the disk is as in the base; within, what isn't yielded is zero. Nil: the
	// whole disk is read.
	Areas *disk.Areas

	// FullReason is a sentence that says why the whole disk is read although there is a base. Empty: it
	// isn't, or there is none.
	FullReason string

	// Tracking is the token of the disk at this point in time. Empty: changes are not tracked.
	Tracking string
}
