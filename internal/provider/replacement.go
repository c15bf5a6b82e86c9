package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"sync"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
)

// replacingKey is, in a context, that what is planned takes the place of something.
type replacingKey struct{}

// replaces reports whether what is planned takes the place of something that is there.
func replaces(ctx context.Context) bool { return ctx.Value(replacingKey{}) != nil }

// replacements tells plans of what takes the place of something from plans of what is new. Terraform asks for both
// without a state, but has asked for the former with one before, from the same configuration.
type replacements struct {
	mu      sync.Mutex
	planned map[[sha256.Size]byte]bool // configurations that were planned with a state
}

// context gives a request the context that says whether it replaces something.
func (r *replacements) context(ctx context.Context, req *tfprotov6.PlanResourceChangeRequest) context.Context {
	if req.Config == nil {
		return ctx
	}
	key := sha256.Sum256(append(append([]byte(req.TypeName), 0), req.Config.MsgPack...))
	r.mu.Lock()
	defer r.mu.Unlock()
	if !isNull(req.PriorState) {
		if r.planned == nil {
			r.planned = map[[sha256.Size]byte]bool{}
		}
		r.planned[key] = true
		return ctx
	}
	if r.planned[key] {
		return context.WithValue(ctx, replacingKey{}, true)
	}
	return ctx
}

func isNull(value *tfprotov6.DynamicValue) bool {
	return value == nil || bytes.Equal(value.MsgPack, []byte{msgpackNil})
}

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
	anew, err := s.protocol.PlanResourceChange(context.WithValue(ctx, replacingKey{}, true), &tfprotov6.PlanResourceChangeRequest{
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
