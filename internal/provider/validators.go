package provider

import (
	"context"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
)

// thumbprintValidator accepts SHA-1 and SHA-256 thumbprints in the ways in which tools write them.
type thumbprintValidator struct{}

var _ validator.String = thumbprintValidator{}

func (thumbprintValidator) Description(context.Context) string {
	return "20 bytes (SHA-1) or 32 bytes (SHA-256) in hexadecimal"
}

func (v thumbprintValidator) MarkdownDescription(ctx context.Context) string {
	return v.Description(ctx)
}

func (v thumbprintValidator) ValidateString(
	ctx context.Context, req validator.StringRequest, resp *validator.StringResponse,
) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	text := strings.ToLower(strings.TrimSpace(req.ConfigValue.ValueString()))
	for _, prefix := range []string{"sha256:", "sha-256:", "sha1:", "sha-1:"} {
		text = strings.TrimPrefix(text, prefix)
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "", "-", "").Replace(text))
	if err != nil || len(b) != 20 && len(b) != 32 {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid Thumbprint",
			fmt.Sprintf("A thumbprint is %s.", v.Description(ctx)))
	}
}

// positiveDuration accepts durations above zero.
type positiveDuration struct{}

var _ validator.String = positiveDuration{}

func (positiveDuration) Description(context.Context) string {
	return `a duration above zero, such as "90s", "15m" or "72h"`
}

func (v positiveDuration) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v positiveDuration) ValidateString(
	ctx context.Context, req validator.StringRequest, resp *validator.StringResponse,
) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	text := req.ConfigValue.ValueString()
	if d, err := time.ParseDuration(text); err != nil || d <= 0 {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid Duration",
			fmt.Sprintf("%q is not %s.", text, v.Description(ctx)))
	}
}

// regularExpression accepts regular expressions as Go and Terraform know them.
type regularExpression struct{}

var _ validator.String = regularExpression{}

func (regularExpression) Description(context.Context) string {
	return `a regular expression (RE2), such as "^nightly-"`
}

func (v regularExpression) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v regularExpression) ValidateString(
	ctx context.Context, req validator.StringRequest, resp *validator.StringResponse,
) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if _, err := regexp.Compile(req.ConfigValue.ValueString()); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid Regular Expression",
			fmt.Sprintf("%s It must be %s.", sentence(err.Error()), v.Description(ctx)))
	}
}

// timestamp accepts RFC 3339 timestamps.
type timestamp struct{}

var _ validator.String = timestamp{}

func (timestamp) Description(context.Context) string {
	return `an RFC 3339 timestamp, such as "2025-11-01T00:00:00Z"`
}

func (v timestamp) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v timestamp) ValidateString(ctx context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	text := req.ConfigValue.ValueString()
	if _, err := time.Parse(time.RFC3339, text); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid Timestamp",
			fmt.Sprintf("%q is not %s.", text, v.Description(ctx)))
	}
}
