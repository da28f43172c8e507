package mcpoauth

import (
	"bytes"
	"encoding/json"
)

// encoded keeps the values of a JSON object as they were written; nil for none.
func encoded(values map[string]any) map[string]json.RawMessage {
	if len(values) == 0 {
		return nil
	}
	all := make(map[string]json.RawMessage, len(values))
	for name, value := range values {
		data, err := json.Marshal(value)
		if err != nil {
			panic(err) // it came as JSON
		}
		all[name] = data
	}
	return all
}

// decoded gives the values back, never nil.
func decoded(values map[string]json.RawMessage) map[string]any {
	all := make(map[string]any, len(values))
	for name, value := range values {
		decoder := json.NewDecoder(bytes.NewReader(value))
		decoder.UseNumber() // a large integer is no float
		var v any
		if err := decoder.Decode(&v); err == nil {
			all[name] = v
		}
	}
	return all
}
