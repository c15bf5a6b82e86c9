// Command schemajson prints the provider's schemas as "terraform providers schema -json" does, without
// a Terraform CLI. The generator of docs/ reads it, so that what is generated doesn't depend on which
// Terraform is installed.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/terraform-vm/terraform-provider-vm/internal/provider"
)

// address is where tfplugindocs looks for the provider "vm" in the schemas; it knows no other
// namespace.
const address = "registry.terraform.io/hashicorp/vm"

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "schemajson:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	server := providerserver.NewProtocol6(provider.New("docs"))()
	s, err := server.GetProviderSchema(ctx, &tfprotov6.GetProviderSchemaRequest{})
	if err != nil {
		return fmt.Errorf("get schemas: %w", err)
	}
	if err := failed(s.Diagnostics); err != nil {
		return err
	}
	ids, err := server.GetResourceIdentitySchemas(ctx, &tfprotov6.GetResourceIdentitySchemasRequest{})
	if err != nil {
		return fmt.Errorf("get identity schemas: %w", err)
	}
	if err := failed(ids.Diagnostics); err != nil {
		return err
	}
	var all object
	if all, err = providerObject(s, ids); err != nil {
		return err
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(object{"format_version": "1.0", "provider_schemas": object{address: all}})
}

func failed(diagnostics []*tfprotov6.Diagnostic) error {
	for _, d := range diagnostics {
		if d.Severity == tfprotov6.DiagnosticSeverityError {
			return fmt.Errorf("%s: %s", d.Summary, d.Detail)
		}
	}
	return nil
}

type object map[string]any

// set adds a value unless it is the zero value, which Terraform leaves out.
func set[T comparable](o object, key string, value T) {
	var zero T
	if value != zero {
		o[key] = value
	}
}

func providerObject(
	s *tfprotov6.GetProviderSchemaResponse, ids *tfprotov6.GetResourceIdentitySchemasResponse,
) (object, error) {
	config, err := schema(s.Provider)
	if err != nil {
		return nil, err
	}
	all := object{"provider": config}
	for key, group := range map[string]map[string]*tfprotov6.Schema{
		"resource_schemas": s.ResourceSchemas, "data_source_schemas": s.DataSourceSchemas,
		"list_resource_schemas": s.ListResourceSchemas,
	} {
		o := object{}
		for name, one := range group {
			if o[name], err = schema(one); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		all[key] = o
	}
	actions := object{}
	for name, one := range s.ActionSchemas {
		b, err := block(one.Schema.Block)
		if err != nil {
			return nil, fmt.Errorf("action %s: %w", name, err)
		}
		actions[name] = object{"block": b}
	}
	all["action_schemas"] = actions
	identities := object{}
	for name, one := range ids.IdentitySchemas {
		if identities[name], err = identity(one); err != nil {
			return nil, fmt.Errorf("identity of %s: %w", name, err)
		}
	}
	all["resource_identity_schemas"] = identities
	return all, nil
}

func schema(s *tfprotov6.Schema) (object, error) {
	b, err := block(s.Block)
	return object{"version": s.Version, "block": b}, err
}

func identity(s *tfprotov6.ResourceIdentitySchema) (object, error) {
	attributes := object{}
	for _, a := range s.IdentityAttributes {
		t, err := typeJSON(a.Type)
		if err != nil {
			return nil, err
		}
		o := object{"type": t}
		set(o, "description", a.Description)
		set(o, "required_for_import", a.RequiredForImport)
		set(o, "optional_for_import", a.OptionalForImport)
		attributes[a.Name] = o
	}
	return object{"version": s.Version, "attributes": attributes}, nil
}

var blockNesting = map[tfprotov6.SchemaNestedBlockNestingMode]string{
	tfprotov6.SchemaNestedBlockNestingModeSingle: "single",
	tfprotov6.SchemaNestedBlockNestingModeList:   "list",
	tfprotov6.SchemaNestedBlockNestingModeSet:    "set",
	tfprotov6.SchemaNestedBlockNestingModeMap:    "map",
	tfprotov6.SchemaNestedBlockNestingModeGroup:  "group",
}

func block(b *tfprotov6.SchemaBlock) (object, error) {
	o := object{"description_kind": textKind(b.DescriptionKind)}
	set(o, "description", b.Description)
	set(o, "deprecated", b.Deprecated)
	if len(b.Attributes) > 0 {
		a, err := attributes(b.Attributes)
		if err != nil {
			return nil, err
		}
		o["attributes"] = a
	}
	nested := object{}
	for _, n := range b.BlockTypes {
		inner, err := block(n.Block)
		if err != nil {
			return nil, err
		}
		one := object{"block": inner, "nesting_mode": blockNesting[n.Nesting]}
		set(one, "min_items", n.MinItems)
		set(one, "max_items", n.MaxItems)
		nested[n.TypeName] = one
	}
	if len(nested) > 0 {
		o["block_types"] = nested
	}
	return o, nil
}

var attributeNesting = map[tfprotov6.SchemaObjectNestingMode]string{
	tfprotov6.SchemaObjectNestingModeSingle: "single",
	tfprotov6.SchemaObjectNestingModeList:   "list",
	tfprotov6.SchemaObjectNestingModeSet:    "set",
	tfprotov6.SchemaObjectNestingModeMap:    "map",
}

func attributes(all []*tfprotov6.SchemaAttribute) (object, error) {
	out := object{}
	for _, a := range all {
		o := object{"description_kind": textKind(a.DescriptionKind)}
		if a.NestedType != nil {
			inner, err := attributes(a.NestedType.Attributes)
			if err != nil {
				return nil, err
			}
			o["nested_type"] = object{"attributes": inner, "nesting_mode": attributeNesting[a.NestedType.Nesting]}
		} else {
			t, err := typeJSON(a.Type)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a.Name, err)
			}
			o["type"] = t
		}
		set(o, "description", a.Description)
		set(o, "required", a.Required)
		set(o, "optional", a.Optional)
		set(o, "computed", a.Computed)
		set(o, "sensitive", a.Sensitive)
		set(o, "write_only", a.WriteOnly)
		set(o, "deprecated", a.Deprecated)
		out[a.Name] = o
	}
	return out, nil
}

func typeJSON(t tftypes.Type) (json.RawMessage, error) {
	return t.MarshalJSON() //nolint:staticcheck // there is no other encoder of the JSON form of types
}

func textKind(k tfprotov6.StringKind) string {
	if k == tfprotov6.StringKindMarkdown {
		return "markdown"
	}
	return "plain"
}
