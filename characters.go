package mcpoauth

import (
	"strings"
	"unicode"
)

// isScope reports whether s is a scope-token (RFC 6749 section 3.3).
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '"' || r == '\\'
	})
}

// isVisible reports whether s is printable ASCII (VSCHAR of RFC 6749 appendix A).
func isVisible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// isPrintable reports whether s is printable, in any script.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// isName reports whether framework.GenericNameRegex matches all of s.
func isName(s string) bool {
	if s == "" || !isWord(s[0]) || !isWord(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !isWord(s[i]) && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return true
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}
