package mcpoauth

import (
	"encoding/json"
	"fmt"
	"strings"
)

// limit bounds a variable-length field of a request: far above real values, far below a harmful size. The other
// fields have few possible values or a format of bounded length.
type limit struct {
	bytes int  // of a text, or of each value in a list or a map
	words bool // a text in a list may hold several values, separated by spaces
	items int  // number of values in a list or a map
	names int  // bytes of each name in a map
}

const (
	maxName = 256 // bytes of a server's or a role's name
	maxURL  = 2 << 10

	// maxEntry bounds the stored form of a config or a role. Vault's storage takes entries of 1 MiB (raft) or 512 KiB
	// (Consul), encrypted.
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

// String returns a sentence for the field's description.
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

// validSize checks the size of the stored form of a config or a role.
func validSize(entry any) error {
	data, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("encoding an entry: %w", err)
	}
	if len(data) > maxEntry {
		return badRequest("the entry is %d bytes long; the limit is %d: shorten long fields, such as ca_cert or extra_params", len(data), maxEntry)
	}
	return nil
}
