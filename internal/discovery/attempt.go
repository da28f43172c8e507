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
	// Temporary is set where there was no answer, or one about the moment: it may be different later.
	Temporary bool

	// down is set where the server was asked, and gave no whole answer, or one about the moment.
	down bool
}

// Error says that no token endpoint was found, and everything that was tried.
type Error struct {
	// Attempts are in the order in which they were made.
	Attempts []Attempt
	// Ended is the error of the ctx that ended the search; nil where it came to its end.
	Ended error
}

// Error lists one attempt a line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("found no token endpoint")
	if e.Ended != nil {
		b.WriteString(" in the time that there was")
	}
	for _, a := range e.Attempts {
		fmt.Fprintf(&b, "\n  %s: %s", a.URL, a.Reason)
	}
	return b.String()
}

// Unwrap returns Ended.
func (e *Error) Unwrap() error { return e.Ended }

// Temporary reports whether trying again later may help.
func (e *Error) Temporary() bool {
	return e.Ended != nil || slices.ContainsFunc(e.Attempts, func(a Attempt) bool { return a.Temporary })
}
