package grant

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
)

// answer is a token endpoint's answer (RFC 6749 sections 5.1 and 5.2), read but not judged. A parameter
// that is missing, null or of a wrong type is "".
type answer struct {
	accessToken string
	tokenType   string
	lifetimes   []lifetime
	scope       string // space-delimited
	scopeSaid   bool
	reason      reason
	// blank is set if the answer is an object without members.
	blank bool
	// failed is set if the answer names an error, not only a message.
	failed bool
}

// format is the format of an answer's body.
type format int

const (
	neither format = iota
	jsonObject
	jsonOther // a list or a text, which some APIs send as an error
	form
)

// parseAnswer reads JSON or a form, whatever the content type: servers send JSON as text/plain, text/html and
// even as a form.
func parseAnswer(status int, body []byte) (answer, format) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF")))
	var fields map[string]json.RawMessage
	switch {
	case json.Unmarshal(body, &fields) == nil && fields != nil:
		return readObject(status, fields), jsonObject
	case json.Valid(body) && (body[0] == '[' || body[0] == '"'):
		return answer{reason: readReason(status, body, 0)}, jsonOther
	}
	return readForm(string(body))
}

func readObject(status int, fields map[string]json.RawMessage) answer {
	a := answer{blank: len(fields) == 0}
	a.accessToken, _ = text(fields["access_token"])
	// A value of another type is kept, so that it is refused. It must not count as missing.
	var isText bool
	if a.tokenType, isText = text(fields["token_type"]); !isText {
		a.tokenType = string(fields["token_type"])
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if l, ok := newLifetime(name, scalar(fields[name])); ok {
			a.lifetimes = append(a.lifetimes, l)
		}
	}
	a.scope, a.scopeSaid = readScope(fields["scope"])
	a.reason, a.failed = readError(status, fields, a.accessToken)
	return a
}

// readForm reads the answer as a form, which a few servers send instead of JSON.
func readForm(body string) (answer, format) {
	v, err := url.ParseQuery(body)
	if err != nil || !v.Has("access_token") && !v.Has("error") {
		return answer{}, neither
	}
	a := answer{
		accessToken: v.Get("access_token"),
		tokenType:   v.Get("token_type"),
		scope:       scopes(v.Get("scope")),
		scopeSaid:   v.Has("scope"),
		reason:      reason{code: v.Get("error"), text: v.Get("error_description")},
		failed:      v.Get("error") != "",
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if l, ok := newLifetime(name, v.Get(name)); ok {
			a.lifetimes = append(a.lifetimes, l)
		}
	}
	return a, form
}
