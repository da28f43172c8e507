package discovery

import (
	"net/url"
	"strings"
	"unicode"
)

// maxShown bounds a server's text in an error, in characters.
const maxShown = 200

// shownURL returns a URL for an error: without query, fragment, user information and path parameters.
func shownURL(u *url.URL) string {
	path, _, _ := strings.Cut(u.EscapedPath(), ";")
	return shown(u.Scheme + "://" + u.Host + path)
}

// shown returns a server's text for an error: printable, on one line, cut short.
func shown(s string) string {
	runes := []rune(strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " "))
	if len(runes) > maxShown {
		runes = append(runes[:maxShown-1], '…')
	}
	return string(runes)
}
