package mcpoauth

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// field defines one field of a T, such as a config: what the API says of it, what it accepts, and where a T has
// its value.
type field[T any] struct {
	name   string
	schema framework.FieldSchema
	limit  limit  // of a variable-length field
	traits traits // what else depends on the field

	// set copies the field from a request that holds it. It is nil if the handler takes the field itself.
	set func(to *T, d *framework.FieldData)
	// value returns the value in the type that a read shows; nil if there is none. It is nil itself for a field
	// that is not stored as it is written.
	value func(of *T) any
	// readAs is the schema of value if it is another than that of a write.
	readAs *framework.FieldSchema
	// check returns an error if the value is not accepted. It is nil if every value is.
	check func(of *T) error
}

// traits are a set of properties of a field.
type traits uint8

const (
	isSecret     traits = 1 << iota // it is never read back or quoted
	isFile                          // user interfaces take it as a file
	isRoute                         // it decides where, or under which protection, the credentials travel
	isCredential                    // it is part of what the client identifies itself with
	needsKey                        // it has a meaning for signing keys only
)

// is gives the field traits.
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

// handled leaves it to the handler to take the field from a request.
func (f field[T]) handled() field[T] {
	f.set = nil
	return f
}

// checked gives the field its check.
func (f field[T]) checked(check func(of *T) error) field[T] {
	f.check = check
	return f
}

// between bounds a duration. If zero is not empty it says what 0 is for, which is accepted too.
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

// textField defines a field that is a string. bytes bounds it; 0 is no bound.
func textField[T any, S ~string](name string, at func(*T) *S, bytes int, description string) field[T] {
	return field[T]{
		name:   name,
		schema: framework.FieldSchema{Type: framework.TypeString, Description: description},
		limit:  limit{bytes: bytes},
		set:    func(to *T, d *framework.FieldData) { *at(to) = S(d.Get(name).(string)) },
		value:  func(of *T) any { return string(*at(of)) },
	}
}

// printable refuses a text that holds other than printable characters.
func (f field[T]) printable() field[T] {
	return f.checked(func(of *T) error {
		if !isPrintable(f.value(of).(string)) {
			return badRequest("%s must be printable characters", f.name)
		}
		return nil
	})
}

// choiceField defines a field that takes one of the values. A field that is empty or byDefault is stored as empty and
// read as byDefault.
func choiceField[T any, S ~string](name string, at func(*T) *S, byDefault S, values []S, description string) field[T] {
	f := textField(name, at, 0, description)
	f.schema.AllowedValues = []any{""}
	for _, value := range values {
		f.schema.AllowedValues = append(f.schema.AllowedValues, string(value))
	}
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

// notSupported says that a field does not take the value, and which values it takes.
func notSupported[S ~string](field string, value S, values []S) error {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	last := len(texts) - 1
	return badRequest("%s %s is not supported: write %s or %s", field, quote(string(value)), strings.Join(texts[:last], ", "), texts[last])
}

// flagField defines a field that is a boolean.
func flagField[T any](name string, at func(*T) *bool, description string) field[T] {
	return field[T]{
		name:   name,
		schema: framework.FieldSchema{Type: framework.TypeBool, Description: description},
		set:    func(to *T, d *framework.FieldData) { *at(to) = d.Get(name).(bool) },
		value:  func(of *T) any { return *at(of) },
	}
}

// durationField defines a field that is written as a duration and read in seconds.
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

// setSeconds takes a duration as Vault's own fields do, in whole seconds: a fraction is
// rounded up, so that a limit of half a second does not become none. An empty value is
// the default.
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

// list is never nil, so that an empty list reads as one.
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
