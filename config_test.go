package mcpoauth

import (
	"fmt"
	"testing"
)

func TestPrintingAConfigShowsNoSecret(t *testing.T) {
	m, as := newMount(t), newAuthServer(t)
	m.configure(as, nil)
	c := m.config("weather")
	q := must(c.request(nil))(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, printed := range []any{c, *c, q, *q} {
			checkSecretFree(t, "a printed config or request", fmt.Sprintf(verb, printed))
		}
	}
}
