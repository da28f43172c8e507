package discovery

import (
	"fmt"
	"slices"
	"strings"
)

// Attempt is a URL that was tried, and the reason why it failed.
type Attempt struct {
	// URL has neither query nor user information.
	URL string
	// Reason is in words. It repeats only identifiers from a document.
	Reason string
	// Temporary is set if a later attempt may succeed: the server was busy or did not answer.
	Temporary bool

	// down is set if the server was called, and was busy or did not answer completely.
	down bool
}

// Error is a failed search, with every attempt.
type Error struct {
	// Attempts are in the order in which they were made.
	Attempts []Attempt
	// NoMetadata is set if usable metadata of the MCP server was not found.
	NoMetadata bool
	// Issuer is the issuer of the authorization server metadata at the MCP server's origin; "" if the origin does not
	// publish any. The MCP server does not name that authorization server, but the operator may.
	Issuer string
	// Ended is the error of ctx, if it ended the search; else nil.
	Ended error
}

// Error lists one attempt a line.
func (e *Error) Error() string {
	text := strings.Join(e.parts(), "\n  ")
	if e.Issuer != "" {
		text += fmt.Sprintf("\nits origin publishes the metadata of an authorization server: write issuer=%s if the credentials are for that server", shown(e.Issuer))
	}
	return text
}

// Sentence returns the text of Error on one line, without Issuer.
func (e *Error) Sentence() string { return strings.Join(e.parts(), "; ") }

func (e *Error) parts() []string {
	what := "found no token endpoint"
	if e.NoMetadata {
		what = "found no protected resource metadata (RFC 9728) of the MCP server"
	}
	if e.Ended != nil {
		what += " before the time was over"
	}
	parts := []string{what}
	for _, a := range e.Attempts {
		parts = append(parts, a.URL+": "+a.Reason)
	}
	return parts
}

// Unwrap returns Ended.
func (e *Error) Unwrap() error { return e.Ended }

// Temporary reports whether a later search may succeed.
func (e *Error) Temporary() bool {
	return e.Ended != nil || slices.ContainsFunc(e.Attempts, func(a Attempt) bool { return a.Temporary })
}
