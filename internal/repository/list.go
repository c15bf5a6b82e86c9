package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
)

// Labels of a snapshot manifest hold what List needs. Kopia keeps them in memory, so that a list of
// any length opens no restore point. They begin with "tag:", which is where the kopia command keeps
// tags (and finds them: kopia snapshot list --tags terraform.vm-name:web01). The user's own tags are
// there under their own names.
const (
	tagPrefix = "tag:"
	ownPrefix = "terraform."

	labelSchema       = tagPrefix + ownPrefix + "schema-version"
	labelVMName       = tagPrefix + ownPrefix + "vm-name"
	labelVMPath       = tagPrefix + ownPrefix + "vm-path"
	labelBIOSUUID     = tagPrefix + ownPrefix + "bios-uuid"
	labelInstanceUUID = tagPrefix + ownPrefix + "instance-uuid"
	labelCreatedAt    = tagPrefix + ownPrefix + "created-at"
	labelConsistency  = tagPrefix + ownPrefix + "consistency"
	labelSizeBytes    = tagPrefix + ownPrefix + "size-bytes"
	labelDescription  = tagPrefix + ownPrefix + "description"
	labelRetention    = tagPrefix + ownPrefix + "retention"
	labelExcluded     = tagPrefix + ownPrefix + "excluded"

	// escapedPrefix is put before a user's tag that begins like ours.
	escapedPrefix = tagPrefix + ownPrefix + "tag."
)

func labels(m *Manifest) map[string]string {
	l := map[string]string{
		labelSchema:       strconv.Itoa(m.SchemaVersion),
		labelVMName:       m.VM.Name,
		labelVMPath:       m.VM.Path,
		labelBIOSUUID:     m.VM.BIOSUUID,
		labelInstanceUUID: m.VM.InstanceUUID,
		labelCreatedAt:    m.CreatedAt.UTC().Format(time.RFC3339Nano),
		labelConsistency:  m.Consistency,
		labelSizeBytes:    strconv.FormatInt(m.SizeBytes(), 10),
		labelDescription:  m.Description,
	}
	if m.Retention != "" {
		l[labelRetention] = m.Retention
	}
	if excluded := m.ExcludedKeys(); excluded != "" {
		l[labelExcluded] = excluded
	}
	for key, value := range m.Tags {
		if strings.HasPrefix(key, ownPrefix) {
			l[escapedPrefix+key] = value
		} else {
			l[tagPrefix+key] = value
		}
	}
	return l
}

// restorePoint reads what labels wrote. It reports false for a snapshot that is none of ours.
func restorePoint(e *manifest.EntryMetadata) (RestorePoint, bool) {
	l := e.Labels
	created, err := time.Parse(time.RFC3339Nano, l[labelCreatedAt])
	if err != nil || l[labelSchema] == "" {
		return RestorePoint{}, false
	}
	size, err := strconv.ParseInt(l[labelSizeBytes], 10, 64)
	if err != nil {
		return RestorePoint{}, false
	}
	p := RestorePoint{
		ID:           ID(e.ID),
		CreatedAt:    created,
		VMName:       l[labelVMName],
		VMPath:       l[labelVMPath],
		BIOSUUID:     l[labelBIOSUUID],
		InstanceUUID: l[labelInstanceUUID],
		Consistency:  l[labelConsistency],
		SizeBytes:    size,
		Description:  l[labelDescription],
		Server:       l[snapshot.HostnameLabel],
		Governed:     l[labelRetention] == RetentionGoverned,
		Excluded:     l[labelExcluded],
	}
	for label, value := range l {
		key, ok := strings.CutPrefix(label, escapedPrefix)
		if !ok {
			key, ok = strings.CutPrefix(label, tagPrefix)
			ok = ok && !strings.HasPrefix(key, ownPrefix)
		}
		if ok {
			if p.Tags == nil {
				p.Tags = map[string]string{}
			}
			p.Tags[key] = value
		}
	}
	return p, true
}

// List returns the restore points that f selects, the newest first.
func (r *Repository) List(ctx context.Context, f Filter) ([]RestorePoint, error) {
	if f.MinConsistency != "" && consistencyRank(f.MinConsistency) == 0 {
		return nil, fmt.Errorf("list repository %s: unknown consistency %q", r.path, f.MinConsistency)
	}
	if f.MinVerification != "" && !f.MinVerification.Covers(VerifyIndex) {
		return nil, fmt.Errorf("list repository %s: unknown level %q", r.path, f.MinVerification)
	}
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	points, err := r.list(ctx, f)
	if err == nil && f.MinVerification != "" {
		var all map[ID][]Verification
		all, err = r.verifications(ctx)
		points = slices.DeleteFunc(points, func(p RestorePoint) bool {
			_, ok := Verified(all[p.ID], f.MinVerification)
			return !ok
		})
	}
	if err != nil {
		return nil, fmt.Errorf("list repository %s: %w", r.path, readError(err))
	}
	return points, nil
}

func (r *Repository) list(ctx context.Context, f Filter) ([]RestorePoint, error) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	r.manifests.RLock()
	defer r.manifests.RUnlock()
	entries, err := r.rep.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: snapshot.ManifestType})
	if err != nil {
		return nil, err
	}
	var points []RestorePoint
	for _, e := range slices.Backward(entries) { // Kopia sorts them by the time of their commit
		p, ok := restorePoint(e)
		if !ok || !f.matches(&p) {
			continue
		}
		if _, ok := e.Labels[labelDescription]; !ok { // of an older version
			var s snapshot.Manifest // in memory by now, too
			if _, err := r.rep.GetManifest(ctx, e.ID, &s); errors.Is(err, manifest.ErrNotFound) {
				continue
			} else if err != nil {
				return nil, err
			}
			p.Description = s.Description
		}
		points = append(points, p)
	}
	slices.SortStableFunc(points, func(a, b RestorePoint) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return points, nil
}

func (f Filter) matches(p *RestorePoint) bool {
	switch {
	case f.VM != "" && f.VM != p.VMName && f.VM != p.VMPath &&
		!strings.EqualFold(f.VM, p.BIOSUUID) && !strings.EqualFold(f.VM, p.InstanceUUID),
		!f.Before.IsZero() && !p.CreatedAt.Before(f.Before),
		!f.After.IsZero() && !p.CreatedAt.After(f.After),
		f.MinConsistency != "" && consistencyRank(p.Consistency) < consistencyRank(f.MinConsistency):
		return false
	}
	for key, value := range f.Tags {
		if got, ok := p.Tags[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// consistencyRank orders consistencies from 1; an unknown one has rank 0.
func consistencyRank(consistency string) int {
	return 1 + slices.Index([]string{"crash", "filesystem", "application"}, consistency)
}
