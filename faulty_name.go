package mcpoauth

import (
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// namesIn maps the first segment of a path to the number of names after it. It omits jwks/, which returns the same
// error for every absent name.
var namesIn = map[string]int{"config": 1, "role": 2, "token": 2, "refresh": 2, "status": 2, "keys": 1}

// faultyName returns the error for a malformed name in a path that matches no pattern; nil if the names are
// well-formed.
func faultyName(path string) error {
	prefix, rest, _ := strings.Cut(path, "/")
	most := namesIn[prefix]
	if most == 0 {
		return nil
	}
	names := strings.SplitN(rest, "/", most)
	if prefix == "keys" { // keys/<server>/rotate
		names[0], _, _ = strings.Cut(rest, "/")
	}
	for _, name := range names {
		if name != "" && !isName(name) {
			return badRequest("the name %s is not allowed: a name consists of letters, digits, \"_\", \"-\" and \".\", and starts and ends with a letter, a digit or \"_\"", quote(name))
		}
	}
	return nil
}

// sameNames returns an error if the request's data name another server or role than its path. The framework would
// silently use the path's.
func sameNames(req *logical.Request) error {
	parts := strings.Split(req.Path, "/")
	if namesIn[parts[0]] == 0 {
		return nil
	}
	for i, field := range []string{"server", "role"} {
		if given, ok := req.Data[field]; ok && (len(parts) <= i+1 || given != parts[i+1]) {
			return badRequest("the path names the %s: leave %s out", field, field)
		}
	}
	return nil
}
