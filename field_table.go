package mcpoauth

import (
	"reflect"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
)

// fieldTable lists the fields of a T, in the order of their checks.
type fieldTable[T any] []field[T]

// written returns the schemas of a write. Their descriptions include the limits.
func (t fieldTable[T]) written() map[string]*framework.FieldSchema {
	all := make(map[string]*framework.FieldSchema, len(t))
	for _, f := range t {
		if f.limit != (limit{}) {
			f.schema.Description += " " + f.limit.String()
		}
		all[f.name] = &f.schema
	}
	return all
}

// read returns the schemas of a read.
func (t fieldTable[T]) read() map[string]*framework.FieldSchema {
	all := t.written()
	for _, f := range t {
		switch {
		case f.value == nil || f.traits&isSecret != 0:
			delete(all, f.name)
		case f.readAs != nil:
			readAs := *f.readAs
			all[f.name] = &readAs
		}
	}
	return all
}

// limits returns the limits of the variable-length fields by name.
func (t fieldTable[T]) limits() map[string]limit {
	all := map[string]limit{}
	for _, f := range t {
		if f.limit != (limit{}) {
			all[f.name] = f.limit
		}
	}
	return all
}

// has reports whether the table has a field of the name.
func (t fieldTable[T]) has(name string) bool {
	return slices.ContainsFunc(t, func(f field[T]) bool { return f.name == name })
}

// names returns the names of the fields with one of the traits.
func (t fieldTable[T]) names(which traits) []string {
	var names []string
	for _, f := range t {
		if f.traits&which != 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// update sets the fields given by the request.
func (t fieldTable[T]) update(to *T, d *framework.FieldData) {
	for _, f := range t {
		if f.set == nil {
			continue
		}
		if _, given := d.GetOk(f.name); given {
			f.set(to, d)
		}
	}
}

// check runs the check of each field and returns the first error.
func (t fieldTable[T]) check(of *T) error {
	for _, f := range t {
		if f.check == nil {
			continue
		}
		if err := f.check(of); err != nil {
			return err
		}
	}
	return nil
}

// response returns the fields of a read without secrets, in a form that can be written back.
func (t fieldTable[T]) response(of *T) map[string]any {
	data := make(map[string]any, len(t))
	for _, f := range t {
		if f.value == nil || f.traits&isSecret != 0 {
			continue
		}
		if value := f.value(of); value != nil {
			data[f.name] = value
		}
	}
	return data
}

// values returns the values of the fields with one of the traits. They may contain secrets.
func (t fieldTable[T]) values(of *T, which traits) []any {
	var values []any
	for _, f := range t {
		if f.value != nil && f.traits&which != 0 {
			values = append(values, f.value(of))
		}
	}
	return values
}

// equal reports whether a and b have equal values in the fields with one of the traits.
func (t fieldTable[T]) equal(a, b *T, which traits) bool {
	return fingerprint(t.values(a, which)) == fingerprint(t.values(b, which))
}

// firstGiven returns the name of the first non-empty field with one of the traits; "" if all are empty.
func (t fieldTable[T]) firstGiven(of *T, which traits) string {
	i := slices.IndexFunc(t, func(f field[T]) bool {
		return f.value != nil && f.traits&which != 0 && !isEmpty(f.value(of))
	})
	if i < 0 {
		return ""
	}
	return t[i].name
}

// isEmpty reports whether a field's value is nil, zero, or an empty map or list.
func isEmpty(value any) bool {
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	default:
		return value == nil || v.IsZero()
	}
}
