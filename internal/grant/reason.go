package grant

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// reason is a server's reason for not issuing a token, not cleaned. Without a reason both fields are "".
type reason struct{ code, text string }

// The names of errors in the answers of servers and gateways, beside RFC 6749's error and error_description:
// Okta, IBM IAM, Google, Spring, Apigee, WSO2, AWS, problem details (RFC 9457) and others. In lower case,
// without punctuation; preferred names first.
var (
	codeNames = []string{"error", "errorcode", "code", "status", "type"}
	textNames = []string{
		"errordescription", "errorsummary", "errormessage", "description", "message", "detail", "reason",
		"faultstring", "msg", "hint", "value",
	}
	// The ends of other names: IBM's moreInformation and messageDescription, responseCode, errorMessages.
	codeEnds = []string{"code", "messageid"}
	textEnds = []string{"description", "message", "messages", "reason", "hint", "information", "summary"}
	// An error may be an object or a list inside the answer.
	reasonNames = []string{"error", "fault", "errors", "errorcauses", "details", "detail", "exception", "message"}
	// The names with a particular reason, beside a general one outside.
	particular = map[string]bool{"errors": true, "errorcauses": true, "details": true}
)

// maxReasonDepth is how deep an error may be inside the answer.
const maxReasonDepth = 3

// readError reads the reason in an answer. failed reports whether the answer names an error, not only a
// message. In an answer with a token only RFC 6749's names count: some servers send "message": "ok".
func readError(status int, fields map[string]json.RawMessage, accessToken string) (found reason, failed bool) {
	if accessToken != "" {
		found.code, _ = text(fields["error"])
		found.text, _ = text(fields["error_description"])
		return found, found.code != ""
	}
	for name, raw := range fields {
		switch plainName(name) {
		case "error", "errorcode", "errors", "fault":
			s := scalar(raw)
			failed = failed || s != "" && s != "false" && s != "0"
		}
	}
	return reasonIn(status, fields, 0), failed
}

// readReason looks for a reason in a JSON value.
func readReason(status int, raw json.RawMessage, depth int) reason {
	var fields map[string]json.RawMessage
	var list []json.RawMessage
	switch {
	case depth > maxReasonDepth:
		return reason{}
	case json.Unmarshal(raw, &fields) == nil:
		return reasonIn(status, fields, depth)
	case json.Unmarshal(raw, &list) == nil && len(list) > 0:
		return readReason(status, list[0], depth+1)
	}
	return reason{text: words(raw, status)}
}

// reasonIn looks for a reason in a JSON object.
func reasonIn(status int, fields map[string]json.RawMessage, depth int) reason {
	named := map[string]json.RawMessage{}
	for _, name := range slices.Sorted(maps.Keys(fields)) { // of two spellings the one in lower case comes last
		named[plainName(name)] = fields[name]
	}
	var found reason
	for _, name := range slices.Concat(codeNames, ending(named, codeEnds)) {
		code, isText := text(named[name])
		if n := string(named[name]); !isText && number.MatchString(n) && n != "0" {
			code = n
		}
		outside := depth == 0 && (name == "status" || name == "type") // useless words, or a URL
		if code == "" || outside || says(code, status) {
			continue
		}
		switch {
		case found.code == "":
			found.code = code
		case registered[code] && !registered[found.code]:
			found.code, found.text = code, found.code
		}
	}
	for _, name := range slices.Concat(textNames, ending(named, textEnds)) {
		if s := words(named[name], status); s != "" && s != found.code {
			found.text = s
			break
		}
	}
	for _, name := range reasonNames {
		raw, ok := named[name]
		if !ok || found.code != "" && found.text != "" && !particular[name] {
			continue
		}
		inner := readReason(status, raw, depth+1)
		if found.code == "" {
			found.code = inner.code
		}
		switch _, isText := text(raw); {
		case found.text == "" && inner.text != found.code:
			found.text = inner.text
		case particular[name] && !isText && !strings.Contains(found.text, inner.text):
			found.text = strings.TrimRight(found.text, ".:") + ": " + inner.text
		}
	}
	if found == (reason{}) {
		found = onlyReason(status, fields, depth)
	}
	if found.text == "" { // the title of problem details (RFC 9457) names only the kind of error
		found.text = words(named["title"], status)
	}
	return found
}

// onlyReason looks for a reason in an object without a known name: in an inner object, such as "result", or in the
// faults of a parameter, such as {"scope": ["unknown"]} of Django and .NET.
func onlyReason(status int, fields map[string]json.RawMessage, depth int) reason {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch raw := fields[name]; raw[0] {
		case '{':
			if inner := readReason(status, raw, depth+1); inner != (reason{}) {
				return inner
			}
		case '[':
			if s := words(raw, status); s != "" {
				return reason{text: name + ": " + s}
			}
		}
	}
	return reason{}
}

// ending returns the names that end in one of ends, in the order of ends.
func ending(named map[string]json.RawMessage, ends []string) []string {
	var names []string
	for _, end := range ends {
		for _, name := range slices.Sorted(maps.Keys(named)) {
			if strings.HasSuffix(name, end) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// words returns the text in raw, or the first in a list; "" if it repeats the HTTP status.
func words(raw json.RawMessage, status int) string {
	s, isText := text(raw)
	var list []json.RawMessage
	if !isText && json.Unmarshal(raw, &list) == nil && len(list) > 0 {
		s, _ = text(list[0])
	}
	if says(s, status) || strings.EqualFold(s, http.StatusText(status)) {
		return ""
	}
	return s
}

// challengeError finds the error attributes of a WWW-Authenticate header (RFC 6750 section 3).
var challengeError = regexp.MustCompile(`(?i)\b(error|error_description)\s*=\s*(?:"([^"]*)"|([^\s",]+))`)

// challengeReason reads the reason in the WWW-Authenticate headers.
func challengeReason(header http.Header) reason {
	var found reason
	for _, value := range header.Values("WWW-Authenticate") {
		for _, m := range challengeError.FindAllStringSubmatch(value, -1) {
			if said := m[2] + m[3]; strings.EqualFold(m[1], "error") {
				found.code = said
			} else {
				found.text = said
			}
		}
	}
	return found
}

// says reports whether s repeats the HTTP status, in digits or in words, like the error pages of frameworks:
// "404", "Not Found", "HTTP 404 Not Found". Only "Bad Request" may be a server's own code.
func says(s string, status int) bool {
	digits := strconv.Itoa(status)
	s = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(s, "HTTP "), digits))
	return s == "" || status != http.StatusBadRequest && strings.EqualFold(s, http.StatusText(status))
}

// reason returns a server's reason for an error. An invalid code may be a description, and a description may
// be a registered code.
func (c cleaner) reason(r reason) (code, description string) {
	code, description = c.code(r.code), c.text(r.text)
	switch {
	case code == "" && description == "":
		description = c.text(r.code)
	case code == "" && registered[description]:
		code, description = description, ""
	}
	return code, description
}
