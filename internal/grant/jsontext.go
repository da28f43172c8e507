package grant

import (
	"encoding/json"
	"strings"
)

// text returns the string in raw, "" if it is null or missing. ok is false for other types.
func text(raw json.RawMessage) (s string, ok bool) {
	if raw == nil {
		return "", true
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// scalar returns the string in raw, or another value as its JSON text; "" for null.
func scalar(raw json.RawMessage) string {
	if s, ok := text(raw); ok {
		return s
	}
	return string(raw)
}

// plainName returns a name without case and punctuation: the same for errorCode, error_code and error-code.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}, name)
}
