package discovery

import (
	"fmt"
	"slices"
	"strings"
)

// Attempt is a URL that was tried and why it was not taken.
type Attempt struct {
	// URL has neither query nor user information.
	URL string
	// Reason is in words, without anything of a document but identifiers.
	Reason string
	// Temporary is set if there was no answer, or one about the moment: it may be different later.
	Temporary bool

	// down is set if the server was asked, and gave no whole answer, or one about the moment.
	down bool
}

// Error says what was not found, and everything that was tried.
type Error struct {
	// Attempts are in the order in which they were made.
	Attempts []Attempt
	// NoMetadata is set if the MCP server publishes no metadata that can be used.
	NoMetadata bool
	// Issuer is that of the authorization server metadata which the MCP server's origin publishes. The MCP
	// server does not name that server, but the operator may. "" if there is none.
	Issuer string
	// Ended is the error of the ctx that ended the search; nil if it came to its end.
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

// Sentence is Error's list on one line.
func (e *Error) Sentence() string { return strings.Join(e.parts(), "; ") }

func (e *Error) parts() []string {
	what := "found no token endpoint"
	if e.NoMetadata {
		what = "found no protected resource metadata (RFC 9728) of the MCP server"
	}
	if e.Ended != nil {
		what += " in the time that there was"
	}
	parts := []string{what}
	for _, a := range e.Attempts {
		parts = append(parts, a.URL+": "+a.Reason)
	}
	return parts
}

// Unwrap returns Ended.
func (e *Error) Unwrap() error { return e.Ended }

// Temporary reports whether trying again later may help.
func (e *Error) Temporary() bool {
	return e.Ended != nil || slices.ContainsFunc(e.Attempts, func(a Attempt) bool { return a.Temporary })
}
