package mcpoauth

import (
	"encoding/json"
	"fmt"
	"strings"
)

// limit bounds a variable-length field of a request, in bytes and in number: far above what is real, far below what
// hurts. Other fields have few values, or a form that says how long they are.
type limit struct {
	bytes int  // of a text, of each value of a list or a map
	words bool // whether a text in a list is one or more values, separated by spaces
	items int  // how many values a list or a map has
	names int  // bytes of a map's names
}

const (
	maxName = 256 // bytes of a server's or a role's name
	maxURL  = 2 << 10

	// maxEntry bounds a config or a role as it is stored, whatever its fields have in common.
	// Vault's storage takes 1 MiB an entry (raft) or 512 KiB (Consul), encrypted.
	maxEntry = 500 << 10
)

func (l limit) check(field string, value any) error {
	var values []string
	switch value := value.(type) {
	case string:
		if len(value) > l.bytes {
			return badRequest("%s must be at most %d bytes long", field, l.bytes)
		}
		return nil
	case []string:
		for _, text := range value {
			if l.words {
				values = append(values, strings.Fields(text)...)
			} else {
				values = append(values, text)
			}
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
