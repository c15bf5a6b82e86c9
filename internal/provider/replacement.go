package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
)

// warnOfReplacement adds to a plan that replaces a resource what there is to warn of the one that takes its place, such as
// what a revert loses. Terraform asks for a plan twice then, first with the state and then without one, and of the second
// answer it shows errors alone, as if the first had brought the same warnings. What fails here fails there as well. A
// replacement that only Terraform knows of, because of -replace, is planned without the warnings.
func (s *steadyServer) warnOfReplacement(
	ctx context.Context, req *tfprotov6.PlanResourceChangeRequest, resp *tfprotov6.PlanResourceChangeResponse,
) {
	if len(resp.RequiresReplace) == 0 || hasErrors(resp.Diagnostics) {
		return
	}
	anew, err := s.protocol.PlanResourceChange(ctx, &tfprotov6.PlanResourceChangeRequest{
		TypeName: req.TypeName, PriorState: &tfprotov6.DynamicValue{MsgPack: []byte{msgpackNil}}, ProposedNewState: req.Config,
		Config: req.Config, PriorPrivate: resp.PlannedPrivate, ProviderMeta: req.ProviderMeta, ClientCapabilities: req.ClientCapabilities,
	})
	if err != nil {
		return
	}
	for _, d := range anew.Diagnostics {
		if d.Severity == tfprotov6.DiagnosticSeverityWarning && !warned(resp.Diagnostics, d) {
			resp.Diagnostics = append(resp.Diagnostics, d)
		}
	}
}

func hasErrors(diags []*tfprotov6.Diagnostic) bool {
	for _, d := range diags {
		if d.Severity == tfprotov6.DiagnosticSeverityError {
			return true
		}
	}
	return false
}

// warned reports whether a diagnostic is among others.
func warned(diags []*tfprotov6.Diagnostic, one *tfprotov6.Diagnostic) bool {
	for _, d := range diags {
		if d.Severity == one.Severity && d.Summary == one.Summary && d.Detail == one.Detail && d.Attribute.Equal(one.Attribute) {
			return true
		}
	}
	return false
}
