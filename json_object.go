package mcpoauth

import (
	"bytes"
	"encoding/json"
)

// encoded returns the values of a JSON object in their JSON form; nil if values is empty.
func encoded(values map[string]any) map[string]json.RawMessage {
	if len(values) == 0 {
		return nil
	}
	all := make(map[string]json.RawMessage, len(values))
	for name, value := range values {
		data, err := json.Marshal(value)
		if err != nil {
			panic(err) // the values were parsed from JSON
		}
		all[name] = data
	}
	return all
}

// decoded returns the values of encoded; empty instead of nil.
func decoded(values map[string]json.RawMessage) map[string]any {
	all := make(map[string]any, len(values))
	for name, value := range values {
		decoder := json.NewDecoder(bytes.NewReader(value))
		decoder.UseNumber() // keeps large integers exact
		var v any
		if err := decoder.Decode(&v); err == nil {
			all[name] = v
		}
	}
	return all
}
