package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
)

// What became of verifications is kept in Kopia manifests of a type of our own, beside the snapshots: Kopia lets
// manifests alone whose type it doesn't know. Labels hold what is asked for often. There is one for each restore
// point and level, which the next one replaces.
const (
	verificationType = "terraform-vm-verification"

	labelVerifiedPoint  = "restore-point"
	labelVerifiedLevel  = "level"
	labelVerifiedAt     = "verified-at"
	labelVerifiedResult = "result"

	resultOK     = "ok"
	resultFailed = "failed"
)

// A Verification is what became of verifying a restore point.
type Verification struct {
	Point    ID
	Level    VerifyLevel
	At       time.Time // when it began if it found nothing, when it ended if it did: damage meanwhile counts
	OK       bool
	Problems []string      // empty: OK; with VerifyRestore what went wrong, else what is damaged
	Duration time.Duration // how long it took
	Version  string        // of the program
}

// verificationContent is what a manifest holds that its labels don't.
type verificationContent struct {
	SchemaVersion   int           `json:"schema_version"`
	ProviderVersion string        `json:"provider_version"`
	Duration        time.Duration `json:"duration_ns"`
	Problems        []string      `json:"problems,omitempty"`
}

// RecordVerification keeps what became of a verification, until the restore point is deleted or the next one of
// its level. Any number of processes may do so at once; what ended last counts.
// Errors: ErrNotFound if the restore point is gone, ErrReadOnly, ErrFull, ErrBusy.
func (r *Repository) RecordVerification(ctx context.Context, v Verification) error {
	if err := r.recordVerification(ctx, v); err != nil {
		return fmt.Errorf("record the verification of restore point %s in repository %s: %w", v.Point, r.path, writeError(err))
	}
	return nil
}

func (r *Repository) recordVerification(ctx context.Context, v Verification) error {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	if _, err := r.snapshot(ctx, v.Point); err != nil {
		return err
	}
	if err := r.checkWritable(ctx); err != nil {
		return err
	}
	unlock, err := r.share(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	old, newest, err := r.replacedVerifications(ctx, v)
	if err != nil {
		return err
	}
	if !v.OK && !v.At.After(newest) { // somebody's clock is ahead: what was found counts nevertheless
		v.At = newest.Add(time.Nanosecond)
	}
	result := resultFailed
	if v.OK {
		result = resultOK
	}
	labels := map[string]string{
		manifest.TypeLabelKey: verificationType, labelVerifiedPoint: string(v.Point), labelVerifiedLevel: string(v.Level),
		labelVerifiedAt: v.At.UTC().Format(time.RFC3339Nano), labelVerifiedResult: result,
	}
	r.manifests.RLock()
	err = repo.WriteSession(ctx, r.rep, writeOptions("record verification"),
		func(ctx context.Context, w repo.RepositoryWriter) error {
			for _, id := range old {
				if err := w.DeleteManifest(ctx, id); err != nil {
					return err
				}
			}
			_, err := w.PutManifest(ctx, labels, &verificationContent{
				SchemaVersion: SchemaVersion, ProviderVersion: v.Version, Duration: v.Duration, Problems: v.Problems,
			})
			return err
		})
	r.manifests.RUnlock()
	if err != nil {
		return err
	}
	r.upkeep(ctx)
	return nil
}

// replacedVerifications are the manifests that a verification replaces, and those of restore points that somebody
// deleted who doesn't know of them. newest is when the restore point was verified last, at any level.
func (r *Repository) replacedVerifications(ctx context.Context, v Verification) (old []manifest.ID, newest time.Time, err error) {
	r.manifests.RLock()
	defer r.manifests.RUnlock()
	snapshots, err := r.rep.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: snapshot.ManifestType})
	if err != nil {
		return nil, newest, readError(err)
	}
	points := map[string]bool{}
	for _, e := range snapshots {
		points[string(e.ID)] = true
	}
	entries, err := r.rep.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: verificationType})
	if err != nil {
		return nil, newest, readError(err)
	}
	for _, e := range entries {
		point := e.Labels[labelVerifiedPoint]
		at, err := time.Parse(time.RFC3339Nano, e.Labels[labelVerifiedAt])
		mine := point == string(v.Point) && err == nil
		if mine && at.After(newest) {
			newest = at
		}
		replaced := mine && e.Labels[labelVerifiedLevel] == string(v.Level) && (!at.After(v.At) || !v.OK)
		if replaced || !points[point] && !outlives(e.Labels, at, v.At) {
			old = append(old, e.ID)
		}
	}
	return old, newest, nil
}

// damageKept is how long it is known that a restore point was damaged which has been deleted: what is damaged is in the
// repository until maintenance has removed it, and what is there is not stored again.
const damageKept = 30 * 24 * time.Hour

// outlives reports whether what was found wrong is kept although its restore point is gone.
func outlives(labels map[string]string, at, now time.Time) bool {
	return labels[labelVerifiedResult] == resultFailed && labels[labelVerifiedLevel] != string(VerifyRestore) &&
		now.Before(at.Add(damageKept))
}

// verificationsOf are the manifests of what became of verifications of a restore point, as far as they go with it.
func (r *Repository) verificationsOf(ctx context.Context, id ID) ([]manifest.ID, error) {
	r.manifests.RLock()
	defer r.manifests.RUnlock()
	entries, err := r.rep.FindManifests(ctx, map[string]string{
		manifest.TypeLabelKey: verificationType, labelVerifiedPoint: string(id),
	})
	if err != nil {
		return nil, readError(err)
	}
	var ids []manifest.ID
	for _, e := range entries {
		at, err := time.Parse(time.RFC3339Nano, e.Labels[labelVerifiedAt])
		if err != nil || !outlives(e.Labels, at, at) {
			ids = append(ids, e.ID)
		}
	}
	return ids, nil
}

// Verifications are what became of the last verification of every level, by restore point, the newest first. No
// restore point is opened. What was damaged is among them for a while after it was deleted.
func (r *Repository) Verifications(ctx context.Context) (map[ID][]Verification, error) {
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	found, err := r.verifications(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the verifications in repository %s: %w", r.path, readError(err))
	}
	return found, nil
}

func (r *Repository) verifications(ctx context.Context) (map[ID][]Verification, error) {
	ctx, unbind := r.bind(ctx)
	defer unbind()
	r.manifests.RLock()
	defer r.manifests.RUnlock()
	entries, err := r.rep.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: verificationType})
	if err != nil {
		return nil, err
	}
	found := map[ID][]Verification{}
	for _, e := range entries {
		v, ok := readVerification(e.Labels)
		if !ok { // of a later version, maybe
			continue
		}
		var content verificationContent // in memory by now, too
		if _, err := r.rep.GetManifest(ctx, e.ID, &content); errors.Is(err, manifest.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		v.Duration, v.Problems, v.Version = content.Duration, content.Problems, content.ProviderVersion
		found[v.Point] = append(found[v.Point], v)
	}
	for point, all := range found {
		slices.SortStableFunc(all, func(a, b Verification) int { return b.At.Compare(a.At) })
		var last []Verification // of two that were made at once, both are there
		for _, v := range all {
			if !slices.ContainsFunc(last, func(w Verification) bool { return w.Level == v.Level }) {
				last = append(last, v)
			}
		}
		found[point] = last
	}
	return found, nil
}

// readVerification reads what labels wrote.
func readVerification(labels map[string]string) (Verification, bool) {
	at, err := time.Parse(time.RFC3339Nano, labels[labelVerifiedAt])
	v := Verification{
		Point: ID(labels[labelVerifiedPoint]), Level: VerifyLevel(labels[labelVerifiedLevel]), At: at,
		OK: labels[labelVerifiedResult] == resultOK,
	}
	return v, err == nil && v.Point.valid() && v.Level.Covers(VerifyIndex)
}

// Verified is the newest verification of a restore point that is of a level at least and found nothing. There is
// none of one that is Damaged; nor, of VerifyRestore, where its guest didn't come up the last time. all are as
// Verifications gives them.
func Verified(all []Verification, level VerifyLevel) (Verification, bool) {
	if foundWrong(all, level) {
		return Verification{}, false
	}
	i := slices.IndexFunc(all, func(v Verification) bool { return v.OK && v.Level.Covers(level) })
	if i < 0 {
		return Verification{}, false
	}
	return all[i], true
}

// Damaged reports whether a restore point was found damaged, and no verification since, of as high a level, found
// nothing: what reading everything finds, looking at the index doesn't see. all are as Verifications gives them.
func Damaged(all []Verification) bool { return foundWrong(all, VerifyIndex) }

// foundWrong reports whether something was found wrong that concerns a level. That a guest didn't come up says nothing
// of what is stored.
func foundWrong(all []Verification, level VerifyLevel) bool {
	for i, v := range all {
		if v.OK || v.Level == VerifyRestore && level != VerifyRestore {
			continue
		}
		if !slices.ContainsFunc(all[:i], func(w Verification) bool { return w.OK && w.Level.Covers(v.Level) }) {
			return true
		}
	}
	return false
}
