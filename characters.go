package mcpoauth

import (
	"strings"
	"unicode"
)

// isScope tells whether s is a scope-token (RFC 6749 section 3.3).
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '"' || r == '\\'
	})
}

// isVisible tells whether s is printable ASCII (VSCHAR of RFC 6749 appendix A).
func isVisible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// isPrintable tells whether s is printable, in any script.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
