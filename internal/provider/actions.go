package provider

import "github.com/hashicorp/terraform-plugin-framework/action"

// allActions are the actions of the provider. Terraform before 1.14, and OpenTofu, ignore them.
func allActions() []func() action.Action {
	return []func() action.Action{
		func() action.Action { return &snapshotCreateAction{} },
		func() action.Action { return &snapshotRevertAction{} },
		func() action.Action { return &backupRunAction{} },
		func() action.Action { return &backupPruneAction{} },
		func() action.Action { return &consolidateAction{} },
		func() action.Action { return &backupVerifyAction{} },
		func() action.Action { return &restoreTestAction{} },
	}
}
