package grant

import (
	"encoding/json"
	"regexp"
	"strings"
)

// visible matches a scope of visible ASCII characters.
var visible = regexp.MustCompile(`^[\x21-\x7E]+$`)

// readScope reads a scope parameter or claim, as text or as a list. said is false if it is missing or invalid.
func readScope(raw json.RawMessage) (scope string, said bool) {
	if s, isText := text(raw); isText {
		return scopes(s), len(raw) > 0 && string(raw) != "null"
	}
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		return "", false
	}
	return scopes(strings.Join(list, " ")), true
}

// scopes folds white space and drops invalid scopes, since brokers get the result.
func scopes(s string) string {
	var kept []string
	for _, scope := range strings.Fields(s) {
		if visible.MatchString(scope) {
			kept = append(kept, scope)
		}
	}
	return strings.Join(kept, " ")
}
