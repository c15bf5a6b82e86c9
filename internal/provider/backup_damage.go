package provider

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// warnOfDamage warns of a backup that a verification found damaged, and names the newest one of the same virtual machine
// that none did: on the day on which the backup is needed, nobody has the time to look for it.
func (s *session) warnOfDamage(
	ctx context.Context, repo *repository.Repository, id repository.ID, at path.Path, diags *diag.Diagnostics,
) {
	known, err := repo.Verifications(ctx)
	if err != nil { // no reason not to go on: what is damaged is noticed when it is read
		s.log.WarnContext(ctx, "look for known damage", "backup", string(id), "error", err)
		return
	}
	if !repository.Damaged(known[id]) {
		return
	}
	all, err := repo.List(ctx, repository.Filter{})
	i := slices.IndexFunc(all, func(p repository.RestorePoint) bool { return p.ID == id })
	if err != nil || i < 0 {
		s.log.WarnContext(ctx, "look for another backup than a damaged one", "backup", string(id), "error", err)
		return
	}
	bad := all[i]
	other := "There is no other backup of this virtual machine that wasn't found damaged."
	for _, p := range all {
		if p.Server == bad.Server && strings.EqualFold(p.InstanceUUID, bad.InstanceUUID) && p.Excluded == "" && !repository.Damaged(known[p.ID]) {
			other = fmt.Sprintf("The newest backup of this virtual machine that wasn't found damaged is %s, taken at %s.", p.ID,
				timeValue(p.CreatedAt).ValueString())
			break
		}
	}
	diags.AddAttributeWarning(at, "Backup Known to Be Damaged", fmt.Sprintf("The backup %s of %s can't be restored as it was taken: %s\n\n%s",
		bad.ID, bad.VMPath, describeDamage(known[id]), other))
}

// describeDamage says what was found when. all are the verifications of a backup, one of which found damage.
func describeDamage(all []repository.Verification) string {
	i := slices.IndexFunc(all, func(v repository.Verification) bool { return !v.OK && v.Level != repository.VerifyRestore })
	if i < 0 {
		return "it was found damaged."
	}
	text := fmt.Sprintf("a verification (%s) found it damaged at %s", all[i].Level, timeValue(all[i].At).ValueString())
	if len(all[i].Problems) > 0 {
		text += ": " + all[i].Problems[0]
	}
	return text + "."
}
