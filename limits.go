package mcpoauth

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
)

// limit bounds a field of a request, in bytes and in number.
type limit struct {
	bytes int // of a text, of each value of a list or a map
	items int // how many values a list or a map has
	names int // bytes of a map's names
}

// limits are those of the fields that are free in their length: far above what is real, far
// below what hurts. Of the others the values are few, or the form says how long they are.
var limits = map[string]limit{
	"server_url":             {bytes: maxURL},
	"issuer":                 {bytes: maxURL},
	"token_url":              {bytes: maxURL},
	"client_id":              {bytes: 8 << 10}, // some authorization servers give out a JWT
	"client_secret":          {bytes: 8 << 10},
	"private_key":            {bytes: 64 << 10},
	"key_id":                 {bytes: 1 << 10},
	"certificate":            {bytes: 64 << 10},
	"client_certificate":     {bytes: 64 << 10},
	"client_certificate_key": {bytes: 64 << 10},
	"assertion_audience":     {bytes: maxURL},
	"assertion_claims":       {bytes: 4 << 10, items: 100, names: 256},
	"scopes":                 {bytes: 1 << 10, items: 100},
	"resource":               {bytes: maxURL, items: 100},
	"audience":               {bytes: maxURL},
	"extra_params":           {bytes: 4 << 10, items: 100, names: 256},
	"extra_headers":          {bytes: 8 << 10, items: 20, names: 256},
	"ca_cert":                {bytes: 256 << 10}, // an operating system's whole bundle
}

const (
	maxName = 256 // bytes of a server's or a role's name
	maxURL  = 2 << 10

	// maxEntry bounds a config or a role as it is stored, whatever its fields have in common.
	// Vault's storage takes 1 MiB an entry (raft) or 512 KiB (Consul), encrypted.
	maxEntry = 500 << 10
)

// withinLimits checks the fields that a request holds, before anything is made of them. The
// framework has seen to their types.
func withinLimits(d *framework.FieldData) error {
	var bounded []string
	for field := range d.Raw {
		if _, known := d.Schema[field]; known && limits[field] != (limit{}) {
			bounded = append(bounded, field)
		}
	}
	slices.Sort(bounded) // for the same answer each time
	for _, field := range bounded {
		if err := limits[field].check(field, d.Get(field)); err != nil {
			return err
		}
	}
	return nil
}

func (l limit) check(field string, value any) error {
	var values []string
	switch value := value.(type) {
	case string:
		if len(value) > l.bytes {
			return badRequest("%s must be at most %d bytes long", field, l.bytes)
		}
		return nil
	case []string:
		if values = value; field == "scopes" {
			values = splitScopes(value)
		}
	case map[string]any:
		texts := map[string]string{}
		for name, v := range encoded(value) {
			if text, ok := value[name].(string); ok {
				v = []byte(text)
			}
			texts[name] = string(v)
		}
		return l.check(field, texts)
	case map[string]string:
		for name, v := range value {
			if len(name) > l.names {
				return badRequest("each name in %s must be at most %d bytes long", field, l.names)
			}
			values = append(values, v)
		}
	}
	if len(values) > l.items {
		return badRequest("%s takes at most %d values", field, l.items)
	}
	for _, v := range values {
		if len(v) > l.bytes {
			return badRequest("each value of %s must be at most %d bytes long", field, l.bytes)
		}
	}
	return nil
}

// String is a sentence for the field's description.
func (l limit) String() string {
	switch {
	case l.names > 0:
		return fmt.Sprintf("At most %d, with names of at most %d bytes and values of at most %d.", l.items, l.names, l.bytes)
	case l.items > 0:
		return fmt.Sprintf("At most %d, of at most %d bytes each.", l.items, l.bytes)
	default:
		return fmt.Sprintf("At most %d bytes.", l.bytes)
	}
}

// described adds their limits to the fields' descriptions.
func described(fields map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	for name, field := range fields {
		if limit, ok := limits[name]; ok {
			field.Description += " " + limit.String()
		}
	}
	return fields
}

// fits checks that a config or a role can be stored.
func fits(entry any) error {
	data, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("encoding an entry: %w", err)
	}
	if len(data) > maxEntry {
		return badRequest("it takes %d bytes to store all this, and %d is the most: shorten what is long, as ca_cert and extra_params may be", len(data), maxEntry)
	}
	return nil
}
