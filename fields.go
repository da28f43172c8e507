package mcpoauth

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// field defines one field of a T, such as a config: its schema in the API, the accepted values, and its place in a T.
type field[T any] struct {
	name   string
	schema framework.FieldSchema
	limit  limit  // of a variable-length field
	traits traits // how other code treats the field

	// set copies the field from a request that gives it; nil if the handler sets the field itself.
	set func(to *T, d *framework.FieldData)
	// value returns the field's value for a read, which omits a nil value. The function itself is nil if the field is
	// not stored as written.
	value func(of *T) any
	// readAs is the schema of value if it differs from schema.
	readAs *framework.FieldSchema
	// check returns an error if the value is refused; nil if every value is accepted.
	check func(of *T) error
}

// traits is a set of properties of a field.
type traits uint8

const (
	isSecret     traits = 1 << iota // never returned by a read or quoted in an error
	isFile                          // user interfaces offer a file upload
	isRoute                         // decides the destination of the credentials, or their protection on the way
	isCredential                    // part of the client's identification
	needsKey                        // refused without a signing key
)

// is adds traits to the field.
func (f field[T]) is(t traits) field[T] {
	f.traits |= t
	if t&isSecret != 0 || t&isFile != 0 {
		f.schema.DisplayAttrs = &framework.DisplayAttributes{Sensitive: t&isSecret != 0}
		if t&isFile != 0 {
			f.schema.DisplayAttrs.EditType = "file"
		}
	}
	return f
}

// handled marks a field that the handler sets itself.
func (f field[T]) handled() field[T] {
	f.set = nil
	return f
}

// checked sets the field's check.
func (f field[T]) checked(check func(of *T) error) field[T] {
	f.check = check
	return f
}

// between bounds a duration. A non-empty zero also allows 0, and follows "or 0" in the error.
func (f field[T]) between(least, most time.Duration, zero string) field[T] {
	return f.checked(func(of *T) error {
		d := time.Duration(f.value(of).(int64)) * time.Second
		switch {
		case d >= least && d <= most || d == 0 && zero != "":
			return nil
		case zero != "":
			return badRequest("%s must be between %s and %s, or 0 %s", f.name, least, most, zero)
		default:
			return badRequest("%s must be between %s and %s", f.name, least, most)
		}
	})
}

// textField defines a string field. bytes is its maximum length; 0 means unlimited.
func textField[T any, S ~string](name string, at func(*T) *S, bytes int, description string) field[T] {
	return field[T]{
		name:   name,
		schema: framework.FieldSchema{Type: framework.TypeString, Description: description},
		limit:  limit{bytes: bytes},
		set:    func(to *T, d *framework.FieldData) { *at(to) = S(d.Get(name).(string)) },
		value:  func(of *T) any { return string(*at(of)) },
	}
}

// printable allows printable characters only.
func (f field[T]) printable() field[T] {
	return f.checked(func(of *T) error {
		if !isPrintable(f.value(of).(string)) {
			return badRequest("%s must be printable characters", f.name)
		}
		return nil
	})
}

// choiceField defines a string field with a list of allowed values. Both an empty value and byDefault are stored as
// empty and read as byDefault.
func choiceField[T any, S ~string](name string, at func(*T) *S, byDefault S, values []S, description string) field[T] {
	f := textField(name, at, 0, description)
	f.schema = *choiceSchema(description, append([]S{""}, values...))
	f.set = func(to *T, d *framework.FieldData) {
		if *at(to) = S(d.Get(name).(string)); *at(to) == byDefault {
			*at(to) = ""
		}
	}
	f.value = func(of *T) any { return string(cmp.Or(*at(of), byDefault)) }
	return f.checked(func(of *T) error {
		if value := *at(of); value != "" && !slices.Contains(values, value) {
			return notSupported(name, value, values)
		}
		return nil
	})
}

// notSupported returns the error for a value outside of a field's allowed values.
func notSupported[S ~string](field string, value S, values []S) error {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	last := len(texts) - 1
	return badRequest("%s %s is not supported: write %s or %s", field, quote(string(value)), strings.Join(texts[:last], ", "), texts[last])
}

// flagField defines a boolean field.
func flagField[T any](name string, at func(*T) *bool, description string) field[T] {
	return field[T]{
		name:   name,
		schema: framework.FieldSchema{Type: framework.TypeBool, Description: description},
		set:    func(to *T, d *framework.FieldData) { *at(to) = d.Get(name).(bool) },
		value:  func(of *T) any { return *at(of) },
	}
}

// durationField defines a field written as a duration and read in seconds.
func durationField[T any](name string, at func(*T) *time.Duration, byDefault time.Duration, description string) field[T] {
	description += fmt.Sprintf(" Default: %d.", seconds(byDefault))
	f := field[T]{
		name:   name,
		schema: framework.FieldSchema{Type: framework.TypeDurationSecond, Description: description},
		set:    func(to *T, d *framework.FieldData) { setSeconds(d, name, at(to), byDefault) },
		value:  func(of *T) any { return int64(*at(of) / time.Second) },
		readAs: &framework.FieldSchema{Type: framework.TypeInt64, Description: description + " In seconds."},
	}
	if byDefault != 0 {
		f.schema.Default, f.readAs.Default = int64(byDefault/time.Second), int64(byDefault/time.Second)
	}
	return f
}

// setSeconds copies a duration in whole seconds, as Vault's own fields do. A fraction is rounded up: half a second
// must not become 0, which may mean unlimited. An empty value means byDefault.
func setSeconds(d *framework.FieldData, field string, to *time.Duration, byDefault time.Duration) {
	value, ok := d.GetOk(field)
	if !ok {
		return
	}
	if *to = time.Duration(value.(int)) * time.Second; d.Raw[field] == "" {
		*to = byDefault
	}
	if exact, err := time.ParseDuration(fmt.Sprint(d.Raw[field])); err == nil && exact > *to {
		*to += time.Second
	}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// list returns s, or an empty list for nil, so that JSON has [] instead of null.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func pairs(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
