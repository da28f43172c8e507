package mcpoauth

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// unknownField returns the error for an unknown field, with the most similar known one.
func unknownField(field string, known map[string]*framework.FieldSchema) error {
	const help = "vault path-help shows the fields"
	all := configFields()
	if known[field] == nil && all[field] != nil {
		return badRequest("the field %q is the config's: write it to config/<server>; %s", field, help)
	}
	if meant := nearest(field, slices.Sorted(maps.Keys(known))); meant != "" {
		return badRequest("unknown field %.64q: did you mean %q? %s", field, meant, help)
	}
	if meant := nearest(field, slices.Sorted(maps.Keys(all))); meant != "" {
		return badRequest("unknown field %.64q: did you mean %q, which is the config's? %s", field, meant, help)
	}
	return badRequest("unknown field %.64q: %s", field, help)
}

// otherNames maps names from RFC 7517, 7515 and 8414 to fields.
var otherNames = map[string]string{
	"token_endpoint": "token_url", "kid": "key_id", "alg": "signing_alg", "typ": "assertion_type",
}

// nearest returns the known field most similar to a misspelt one; "" if all differ too much.
func nearest(field string, known []string) string {
	if len(field) > 64 {
		return ""
	}
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	if other := otherNames[strings.ToLower(field)]; slices.Contains(known, other) {
		return other
	}
	best, least := "", max(2, len(field)/4)+1
	for _, name := range known {
		if name == "server" || name == "role" { // parts of the path
			continue
		}
		if d := editDistance(plain(field), plain(name)); d < least {
			best, least = name, d
		}
	}
	if best != "" || len(field) < 4 {
		return best
	}
	// A part of a name, such as secret or auth_method, if only one name contains it.
	parts := slices.DeleteFunc(slices.Clone(known), func(name string) bool { return !strings.Contains(plain(name), plain(field)) })
	if len(parts) == 1 {
		return parts[0]
	}
	// An extended name, such as issuer_url or client_secret_value.
	for _, name := range known {
		if len(parts) == 0 && len(name) > max(5, len(best)) && strings.Contains(plain(field), plain(name)) {
			best = name
		}
	}
	return best
}

// editDistance returns the number of letters to insert, delete or replace to turn a into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
