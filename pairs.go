package mcpoauth

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// prepareFields turns name=value pairs into maps. It refuses a name or a scalar field given twice: the vault command
// sends a list then, and a map would silently keep the last value. schemas are those of the request's path.
func prepareFields(data map[string]any, schemas map[string]*framework.FieldSchema) error {
	for _, field := range slices.Sorted(maps.Keys(data)) {
		schema := schemas[field]
		if schema == nil {
			continue
		}
		switch schema.Type {
		case framework.TypeMap, framework.TypeKVPairs:
			pairs, err := parsePairs(field, data[field])
			if err == nil && field == "extra_headers" {
				pairs, err = canonicalNames(field, pairs)
			}
			if err != nil {
				return err
			}
			data[field] = pairs
		case framework.TypeCommaStringSlice:
		default:
			if _, isList := data[field].([]any); isList {
				return badRequest("%s must be one value: it is given more than once, or as a list", field)
			}
		}
	}
	return nil
}

// parsePairs reads name=value pairs, or a JSON object as a map or a text (the vault command can only write texts). A
// name alone has a nil value. Errors contain names only, since values may be secret.
func parsePairs(field string, value any) (map[string]any, error) {
	var pairs []any
	switch value := value.(type) {
	case map[string]any:
		return value, nil
	case []any:
		pairs = value
	case string:
		if strings.HasPrefix(strings.TrimSpace(value), "{") {
			return objectOf(field, value)
		}
		if value != "" {
			pairs = []any{value}
		}
	default:
		return nil, notPairs(field)
	}
	all := map[string]any{}
	for _, pair := range pairs {
		text, isText := pair.(string)
		name, value, hasValue := strings.Cut(text, "=")
		if _, twice := all[name]; twice {
			return nil, givenTwice(field, name)
		}
		switch {
		case isText && hasValue:
			all[name] = value
		case isText && field == "extra_headers":
			all[name] = nil
		default:
			return nil, notPairs(field)
		}
	}
	return all, nil
}

// canonicalNames returns the headers under their canonical names. Header names are case-insensitive.
func canonicalNames(field string, headers map[string]any) (map[string]any, error) {
	all := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		canonical := http.CanonicalHeaderKey(name)
		if _, twice := all[canonical]; twice {
			return nil, givenTwice(field, canonical)
		}
		switch value := headers[name].(type) {
		case string, nil:
			all[canonical] = value
		default:
			return nil, badRequest("%s: the value of %s must be a text", field, quote(canonical))
		}
	}
	return all, nil
}

func notPairs(field string) error {
	return badRequest("%s takes name=value pairs or a JSON object", field)
}

// objectOf reads a JSON object and refuses a name given twice.
func objectOf(field, text string) (map[string]any, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber() // keeps large integers exact
	all := map[string]any{}
	if _, err := decoder.Token(); err != nil {
		return nil, notObject(field)
	}
	for decoder.More() {
		name, err := decoder.Token()
		key, _ := name.(string)
		if err != nil {
			return nil, notObject(field)
		}
		if _, twice := all[key]; twice {
			return nil, givenTwice(field, key)
		}
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, notObject(field)
		}
		all[key] = value
	}
	if _, err := decoder.Token(); err != nil {
		return nil, notObject(field)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, notObject(field)
	}
	return all, nil
}

func notObject(field string) error { return badRequest("%s is not a JSON object", field) }

func givenTwice(field, name string) error { return badRequest("%s holds %s twice", field, quote(name)) }
