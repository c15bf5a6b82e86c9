package provider

import (
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// Only what Terraform writes in another way than it was is the same.
func TestSameJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		was, is string
		same    bool
	}{
		{`{"b": 1, "a": ["<"]}`, `{"a":["\u003c"],"b":1}`, true},
		{`[1, {}]`, `[1,{}]`, true},
		{`{"id": 20261122193000123}`, `{"id":20261122193000124}`, false},
		{`{"a":1}`, `{"a":2}`, false},
		{"20261122193000123", "20261122193000124", false},
		{"1", "1.0", false},
		{` "a"`, `"a"`, false},
		{"null", " null", false},
		{`{"a":1} and more`, `{"a":1} or more`, false},
		{`{"a":1}{"b":1}`, `{"a":1} {"b":1}`, false},
		{`{"a":1}]`, `{"a":1} ]`, false},
		{"", `{}`, false},
	} {
		resp := planmodifier.StringResponse{PlanValue: types.StringValue(c.is)}
		sameJSON{}.PlanModifyString(t.Context(), planmodifier.StringRequest{
			StateValue: types.StringValue(c.was), PlanValue: types.StringValue(c.is),
		}, &resp)
		if same := resp.PlanValue.ValueString() == c.was; same != c.same {
			t.Errorf("%s and %s: the same: %v", c.was, c.is, same)
		}
	}
}
