package discovery

import (
	"regexp"
	"strings"
)

// challenge is one challenge of a WWW-Authenticate field (RFC 9110 section 11.6.1).
type challenge struct {
	scheme string            // in lower case
	params map[string]string // names in lower case; the first value of a name counts
}

// bearer holds the parameters of Bearer challenges for discovery.
type bearer struct {
	metadata string   // resource_metadata (RFC 9728 section 5.1); "" if missing
	scopes   []string // scope (RFC 6750 section 3); nil if missing
}

// parseBearer reads the Bearer challenges of WWW-Authenticate fields. Other schemes are irrelevant to a client
// with a bearer token.
func parseBearer(fields []string) bearer {
	var b bearer
	for _, field := range fields {
		for _, c := range parseChallenges(field) {
			if c.scheme != "bearer" {
				continue
			}
			if b.metadata == "" {
				b.metadata = c.params["resource_metadata"]
			}
			if b.scopes == nil {
				b.scopes = scopeTokens(strings.Fields(c.params["scope"]))
			}
		}
	}
	return b
}

// parseChallenges reads one WWW-Authenticate field, which may hold several challenges. It skips malformed parts:
// another scheme's challenge or a malformed parameter must not hide the Bearer challenge. Commas separate both
// challenges and parameters. If "=" follows a name it is a parameter's, else a scheme's.
func parseChallenges(field string) []challenge {
	var all []challenge
	for s := field; ; {
		s = strings.TrimLeft(s, " \t,;") // some servers separate parameters by semicolons
		if s == "" {
			return all
		}
		name, rest := token(s)
		if name == "" { // not the beginning of a challenge: skip to the next comma
			_, s, _ = strings.Cut(s, ",")
			continue
		}
		if after := strings.TrimLeft(rest, " \t"); !strings.HasPrefix(after, "=") {
			all = append(all, challenge{scheme: strings.ToLower(name), params: map[string]string{}})
			s = skipToken68(rest)
			continue
		}
		_, rest, _ = strings.Cut(rest, "=")
		value, rest, ok := paramValue(strings.TrimLeft(rest, " \t"))
		if !ok {
			return all
		}
		if name = strings.ToLower(name); len(all) > 0 {
			params := all[len(all)-1].params
			if _, twice := params[name]; !twice {
				params[name] = value
			}
		}
		s = rest
	}
}

// nextParam finds the beginning of another parameter.
var nextParam = regexp.MustCompile(`[ \t;]+\w+=`)

// paramValue cuts a parameter's value from s. ok is false if a quoted string does not end.
func paramValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		// The grammar wants a token. Servers also send a URL or several scopes, and leave the comma out.
		value, rest, _ = strings.Cut(s, ",")
		if at := nextParam.FindStringIndex(value); at != nil {
			value, rest = value[:at[0]], s[at[0]:]
		}
		return strings.Trim(value, " \t;'"), rest, true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// skipToken68 cuts off the token68, which some schemes have in place of parameters.
func skipToken68(s string) string {
	blob := strings.TrimLeft(s, " \t")
	if blob == s {
		return s
	}
	end := strings.TrimLeft(strings.TrimLeftFunc(blob, func(r rune) bool {
		return isAlphanumeric(r) || strings.ContainsRune("-._~+/", r)
	}), "=")
	if end = strings.TrimLeft(end, " \t"); end == "" || strings.HasPrefix(end, ",") {
		return end
	}
	return s
}

// token cuts an RFC 9110 token from the front of s.
func token(s string) (name, rest string) {
	rest = strings.TrimLeftFunc(s, func(r rune) bool {
		return isAlphanumeric(r) || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	return s[:len(s)-len(rest)], rest
}

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
