package vsphere

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// tokenVersion is the version of the tokens that are made. Others can't be read.
const tokenVersion = 1

// A trackingToken is what a hypervisor.ReadPlan.Tracking of this package says: the change ID of a disk at a
// point in time, and everything by which a later point in time can prove that it still means something.
type trackingToken struct {
	Version  int    `json:"version"`
	ChangeID string `json:"change_id"` // of the snapshot

	Server   string `json:"server"`
	VM       string `json:"vm"`   // instance UUID
	Disk     string `json:"disk"` // UUID
	Capacity int64  `json:"capacity"`
	Slot     string `json:"slot"` // controller and unit
	Path     string `json:"path"` // of the file at the bottom of the disk's chain

	Taken time.Time   `json:"taken"` // by the host's clock
	Log   logPosition `json:"log"`
}

// encode is the reverse of parseToken.
func (t trackingToken) encode() (string, error) {
	t.Version = tokenVersion
	data, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode tracking token: %w", err)
	}
	return string(data), nil
}

// parseToken reads a token.
func parseToken(text string) (trackingToken, error) {
	var t trackingToken
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return trackingToken{}, fmt.Errorf("parse tracking token: %w", err)
	}
	switch {
	case t.Version != tokenVersion:
		return trackingToken{}, fmt.Errorf("parse tracking token: version %d is not known", t.Version)
	case t.ChangeID == "" || t.ChangeID == "*" || t.Disk == "" || t.Capacity <= 0:
		return trackingToken{}, errors.New("parse tracking token: it is incomplete")
	}
	return t, nil
}

// splitChangeID splits a change ID into the identity of the tracking and its count of points in time. The
// form, "52 2d 7b 8f …/17", isn't documented: of another one the whole is the identity, and ok is false.
func splitChangeID(id string) (tracking string, count int64, ok bool) {
	tracking, number, found := strings.Cut(id, "/")
	count, err := strconv.ParseInt(number, 10, 64)
	if !found || err != nil || tracking == "" || count < 0 {
		return id, 0, false
	}
	return tracking, count, true
}

// differs says in a sentence why changes since another token of a disk can't be told from the change IDs
// of both. Empty: nothing speaks against it.
func (t trackingToken) differs(base trackingToken) string {
	switch {
	case base.Server != t.Server || base.VM != t.VM:
		return "The base is of another virtual machine."
	case base.Disk != t.Disk:
		return "The base is of another disk."
	case base.Capacity != t.Capacity:
		return fmt.Sprintf("The disk was resized since: it had %d bytes and has %d.", base.Capacity, t.Capacity)
	case base.Path != t.Path:
		return fmt.Sprintf("The disk was moved since: it was %s and is %s.", base.Path, t.Path)
	case base.Slot != t.Slot:
		return fmt.Sprintf("The disk was attached elsewhere since: it was at %s and is at %s.", base.Slot, t.Slot)
	}
	was, before, known := splitChangeID(base.ChangeID)
	is, now, alike := splitChangeID(t.ChangeID)
	switch {
	case known != alike || known && was != is:
		return "Change tracking was started anew since."
	case !known:
		return "The server's change IDs are of a form that is not known, so that they can't be compared."
	case now <= before:
		// A revert takes the count back to where it was.
		return "The disk was brought back to an earlier state since."
	}
	return ""
}
