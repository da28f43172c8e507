//go:build servers

package acceptance

import (
	"net/http"
	"strings"
	"testing"
)

func init() {
	claimsOf["Spring"] = []serverClaim{{"certificate without a chain", checkLoneCertificate}}
}

// Spring treats a certificate without a chain as self_signed_tls_client_auth.
func checkLoneCertificate(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c, fields := s.withCertificate(t, nil)
	fields["client_certificate"] = strings.TrimSuffix(fields["client_certificate"].(string), s.CA().PEM)
	c.refuse(t, "config/"+c.name, c.fields(fields), http.StatusBadRequest, "without a chain, which some servers take for self_signed_tls_client_auth")
}
