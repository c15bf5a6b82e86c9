package lab

import (
	"reflect"
	"time"
)

// clone copies a value deeply. Readers may still be encoding what an object held before a change, so
// what objects hold is replaced, never changed in place.
func clone[T any](v T) T {
	out := reflect.New(reflect.TypeFor[T]()).Elem()
	cloneInto(out, reflect.ValueOf(&v).Elem())
	return out.Interface().(T) //nolint:forcetypeassert // made of this type above
}

func cloneInto(dst, src reflect.Value) {
	switch src.Kind() {
	case reflect.Pointer:
		if src.IsNil() {
			return
		}
		p := reflect.New(src.Type().Elem())
		cloneInto(p.Elem(), src.Elem())
		dst.Set(p)
	case reflect.Interface:
		if src.IsNil() {
			return
		}
		v := reflect.New(src.Elem().Type()).Elem()
		cloneInto(v, src.Elem())
		dst.Set(v)
	case reflect.Slice:
		if src.IsNil() {
			return
		}
		s := reflect.MakeSlice(src.Type(), src.Len(), src.Len())
		for i := range src.Len() {
			cloneInto(s.Index(i), src.Index(i))
		}
		dst.Set(s)
	case reflect.Struct:
		if src.Type() == reflect.TypeFor[time.Time]() {
			dst.Set(src)
			return
		}
		for i := range src.NumField() {
			cloneInto(dst.Field(i), src.Field(i))
		}
	default:
		dst.Set(src)
	}
}

// isZero says whether nothing is set in a structure. An empty list counts as nothing.
func isZero[T any](v T) bool {
	r := reflect.ValueOf(v)
	for i := range r.NumField() {
		if f := r.Field(i); !f.IsZero() && (f.Kind() != reflect.Slice || f.Len() > 0) {
			return false
		}
	}
	return true
}
