package main

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	simulated "github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/provider"
)

// What the demo reads of resources is there and of the type that it is read into: a change of a schema that it has
// not followed fails here, without playing it.
func TestOutputs(t *testing.T) {
	t.Parallel()
	attributes := map[string]map[string]attr.Type{}
	for _, build := range provider.New("test").Resources(t.Context()) {
		r := build()
		var meta resource.MetadataResponse
		r.Metadata(t.Context(), resource.MetadataRequest{ProviderTypeName: "vm"}, &meta)
		var s resource.SchemaResponse
		r.Schema(t.Context(), resource.SchemaRequest{}, &s)
		object, ok := s.Schema.Type().(attr.TypeWithAttributeTypes)
		if !ok {
			t.Fatalf("%s is a %T", meta.TypeName, s.Schema.Type())
		}
		attributes[meta.TypeName] = object.AttributeTypes()
	}
	for name, output := range map[string]any{
		"vm_snapshot": snapshotOutput{}, "vm_backup": backupOutput{}, "vm_restore": restoreOutput{},
	} {
		readable(t, name, types.ObjectType{AttrTypes: attributes[name]}, reflect.TypeOf(output))
	}
}

// readable checks that what Terraform writes of a value can be read into a Go type.
func readable(t *testing.T, name string, from attr.Type, into reflect.Type) {
	t.Helper()
	kind := into.Kind()
	switch from := from.(type) {
	case attr.TypeWithAttributeTypes:
		if kind != reflect.Struct {
			t.Errorf("%s is an object, and read into a %s", name, into)
			return
		}
		for key, field := range fieldsOf(into) {
			if inner, ok := from.AttributeTypes()[key]; ok {
				readable(t, name+"."+key, inner, field)
			} else {
				t.Errorf("%s has no attribute %s, only %v", name, key, slices.Sorted(maps.Keys(from.AttributeTypes())))
			}
		}
	case attr.TypeWithElementType:
		if kind != reflect.Slice {
			t.Errorf("%s is a list, and read into a %s", name, into)
			return
		}
		readable(t, name+"[]", from.ElementType(), into.Elem())
	default:
		kinds := map[attr.Type][]reflect.Kind{
			types.StringType: {reflect.String}, types.BoolType: {reflect.Bool}, types.Float64Type: {reflect.Float64},
			types.Int64Type: {reflect.Int64, reflect.Int, reflect.Float64}, // a number with a fraction fits no integer
		}
		if !slices.Contains(kinds[from], kind) {
			t.Errorf("%s is a %s, and read into a %s", name, from, into)
		}
	}
}

// fieldsOf are the fields of a struct by their names in JSON.
func fieldsOf(typ reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for field := range typ.Fields() {
		if tag := field.Tag.Get("json"); tag != "" {
			name, _, _ := strings.Cut(tag, ",")
			fields[name] = field.Type
		}
	}
	return fields
}

// The same for what it reads of the lab.
func TestLabStatus(t *testing.T) {
	t.Parallel()
	printed(t, "status", reflect.TypeFor[simulated.Status](), reflect.TypeFor[labStatus]())
}

// printed checks that what one Go type is written as can be read into another.
func printed(t *testing.T, name string, from, into reflect.Type) {
	t.Helper()
	switch {
	case into == reflect.TypeFor[json.RawMessage]():
	case from.Kind() != into.Kind():
		t.Errorf("%s is a %s, and read into a %s", name, from, into)
	case into.Kind() == reflect.Slice:
		printed(t, name+"[]", from.Elem(), into.Elem())
	case into.Kind() == reflect.Struct:
		there := fieldsOf(from)
		for key, field := range fieldsOf(into) {
			if there[key] == nil {
				t.Errorf("%s has no %s, only %v", name, key, slices.Sorted(maps.Keys(there)))
				continue
			}
			printed(t, name+"."+key, there[key], field)
		}
	}
}
