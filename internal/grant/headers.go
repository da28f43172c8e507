package grant

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
)

// headerName is a field name (RFC 9110 section 5.1).
var headerName = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

// headerValue is a field value of printable ASCII characters and blanks between them (RFC 9110 section 5.5).
var headerValue = regexp.MustCompile(`^[\x21-\x7E]([\x20-\x7E\t]*[\x21-\x7E])?$`)

// ownHeaders are refused in extra_headers: the client's authentication, and the headers of the connection (RFC 9110
// section 7.6.1, RFC 9112).
var ownHeaders = map[string]bool{
	"Authorization": true, "Host": true, "Connection": true, "Transfer-Encoding": true, "Te": true,
	"Trailer": true, "Upgrade": true, "Keep-Alive": true, "Expect": true, "Accept-Encoding": true,
}

// CheckHeader returns an error if extra_headers may not hold the header. It repeats nothing of the value.
func CheckHeader(name, value string) error {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !headerName.MatchString(name):
		return errors.New("a header's name consists of letters, digits and hyphens (RFC 9110 section 5.1): write name=value")
	case ownHeaders[canonical], strings.HasPrefix(canonical, "Content-"), strings.HasPrefix(canonical, "Proxy-"):
		return errors.New("leave " + canonical + " out: extra_headers can't hold it")
	case !headerValue.MatchString(value):
		return errors.New("the value of " + canonical + " must be printable ASCII characters, without blanks around them")
	}
	return nil
}
