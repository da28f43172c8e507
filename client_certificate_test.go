package mcpoauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// authority is a certificate authority that servers and clients have in common.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate: certificate, key: key, pem: encodePEM("CERTIFICATE", der)}
}

// issue makes a certificate for a name, which is a host's at loopback too.
func (a *authority) issue(t *testing.T, name string, life time.Duration) (certificate, key string) {
	t.Helper()
	private := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(life),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return encodePEM("CERTIFICATE", der), pemOf(t, private)
}

// newServer starts an authorization server that wants client certificates of the
// authority. With required set it lets nobody in without.
func (a *authority) newServer(t *testing.T, required bool) *authServer {
	t.Helper()
	certificate, key := a.issue(t, "server", time.Hour)
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	as := unstarted(t)
	as.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	if required {
		as.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	}
	as.StartTLS()
	return as
}

// client is the config of a client with a certificate of such a life.
func (a *authority) client(t *testing.T, life time.Duration) fields {
	t.Helper()
	certificate, key := a.issue(t, "vault", life)
	return fields{
		"client_id": "vault", "client_certificate": certificate, "client_certificate_key": key, "ca_cert": a.pem,
	}
}

const longLife = 60 * 24 * time.Hour

func TestClientCertificate(t *testing.T) {
	ca, m := newAuthority(t), newMount(t)
	as := ca.newServer(t, true)
	if warnings := m.write("config/weather", with(ca.client(t, longLife), fields{"token_url": as.URL + "/token"})); warnings != nil {
		t.Errorf("warnings of a write without fault: %q", warnings)
	}
	shown := func(n int) string {
		t.Helper()
		request := as.await(n)
		if request.clientSecret != "" || request.form.Get("client_id") != "vault" || request.form.Has("client_secret") || request.form.Has("client_assertion") {
			t.Errorf("the request was %+v", request)
		}
		if len(request.certificates) == 0 {
			t.Fatal("no certificate was shown")
		}
		return request.certificates[0].Subject.CommonName
	}
	if got := shown(1); got != "vault" {
		t.Errorf("the certificate of %q was shown", got)
	}
	m.write("config/weather", fields{"scopes": "a"})
	m.refused(http.StatusNotFound, logical.ReadOperation, "keys/weather", nil, "has no signing key")

	next, key := ca.issue(t, "next", longLife)
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"client_certificate": next}, "does not belong to the private key")
	m.write("config/weather", fields{"client_certificate": next, "client_certificate_key": key})
	if got := shown(3); got != "next" {
		t.Errorf("the certificate of %q was shown; want the new one", got)
	}
	other := newAuthority(t).client(t, longLife)
	was := m.storage.entries(t)
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather",
		fields{"client_certificate": other["client_certificate"], "client_certificate_key": other["client_certificate_key"]},
		"refused the client certificate")
	m.storage.unchanged(t, was)
}

// From the MCP server's URL alone: the endpoint for certificates is another.
func TestClientCertificateWithDiscovery(t *testing.T) {
	ca := newAuthority(t)
	for _, test := range []struct {
		name   string
		method string
		alias  bool
	}{
		{"alias", "tls_client_auth", true},
		{"no alias", "tls_client_auth", false},
		{"alias, self-signed", "self_signed_tls_client_auth", true},
		{"no alias, self-signed", "self_signed_tls_client_auth", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, as, mtls := newMount(t), ca.newServer(t, false), ca.newServer(t, true)
			as.TLS.ClientAuth = tls.RequestClientCert
			metadata := fields{"token_endpoint_auth_methods_supported": []string{test.method}}
			asked, unasked := as, mtls
			if test.alias {
				metadata["mtls_endpoint_aliases"] = fields{"token_endpoint": mtls.URL + "/token"}
				asked, unasked = mtls, as
			}
			mcp := newMCPServer(t, as, metadata)
			m.write("config/weather", with(ca.client(t, longLife), fields{"server_url": mcp.url()}))
			asked.asked(t, 1, "after the write")
			unasked.asked(t, 0, "after the write")
			read := m.read("config/weather")
			if read["discovered_token_url"] != as.URL+"/token" {
				t.Errorf("discovered_token_url is %v", read["discovered_token_url"])
			}
			was := m.storage.entries(t)
			m.write("config/weather", read)
			m.write("config/weather", with(read, fields{"verify": false}))
			m.storage.unchanged(t, was)

			// Another issuer, without the key in the write.
			thief := ca.newServer(t, false)
			thief.describes(nil)
			mcp.wants(thief)
			m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"rediscover": true}, "write the credentials too")
			m.storage.unchanged(t, was)
			thief.asked(t, 0, "after the refused write")
		})
	}
}

// A certificate does not go to the endpoint for all if that for certificates can't be used.
func TestAliasThatCanNotBeUsedIsSaidToCertificatesAlone(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"mtls_endpoint_aliases": fields{"token_endpoint": "https://10.0.0.1/token"}})
	equal(t, "the warnings of a secret", m.write("config/weather", mcp.client()), nil)
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather",
		with(newAuthority(t).client(t, longLife), fields{"client_secret": ""}),
		"at 10.0.0.1:", "10.0.0.1 (private) is not called without allow_private_addresses=true")
	as.asked(t, 1, "after the refused write")
}

// A secret goes to the endpoint for all, whatever there is for certificates.
func TestTheAliasIsForCertificatesAlone(t *testing.T) {
	ca := newAuthority(t)
	mtls := ca.newServer(t, true)
	m, as, mcp := discoverable(t, fields{"mtls_endpoint_aliases": fields{"token_endpoint": mtls.URL + "/token"}})
	m.write("config/weather", mcp.client())
	as.asked(t, 1, "after the write")
	mtls.asked(t, 0, "after the write")
}

func TestEndOfTheClientCertificate(t *testing.T) {
	const day = 24 * time.Hour
	ca := newAuthority(t)
	for _, test := range []struct {
		life  time.Duration
		warns bool
	}{
		{31 * day, false},
		{30*day - time.Hour, true},
		{time.Hour, true},
	} {
		as, m := ca.newServer(t, true), newMount(t)
		warnings := m.write("config/weather", with(ca.client(t, test.life), fields{"token_url": as.URL + "/token"}))
		status := m.read("status/weather")
		end := instant(t, status, "client_certificate_expires_at")
		if left := time.Until(end); left > test.life || left < test.life-time.Minute {
			t.Errorf("of a certificate of %s the status says that it ends in %s", test.life, left)
		}
		for where, got := range map[string][]string{"the write": warnings, "status": status["warnings"].([]string)} {
			if (len(got) == 1) != test.warns || test.warns && !strings.Contains(got[0], "client_certificate expires at "+rfc3339(end)) {
				t.Errorf("of a certificate of %s %s warns %q", test.life, where, got)
			}
		}
		m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
		if got := m.read("status/weather/reader")["client_certificate_expires_at"]; got != rfc3339(end) {
			t.Errorf("the role's status says %v", got)
		}
	}
	as, m := ca.newServer(t, true), newMount(t)
	for _, verify := range []bool{true, false} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
			with(ca.client(t, -time.Second), fields{"token_url": as.URL + "/token", "verify": verify}), "client_certificate expired at", "write one that is valid")
	}
	as.asked(t, 0, "after expired certificates")
}

// The rest of a config can be changed when its client certificate has expired.
func TestExpiredClientCertificateFreezesNothing(t *testing.T) {
	as, m, ca := newAuthServer(t), newMount(t), newAuthority(t)
	m.configure(as, nil)
	stored := m.config("weather")
	expired := ca.client(t, -time.Second)
	stored.ClientSecret, stored.TokenURL = "", "https://as.example.com/token"
	stored.ClientCertificate = expired["client_certificate"].(string)
	stored.ClientCertificateKey = expired["client_certificate_key"].(string)
	if err := m.store().putConfig(t.Context(), "weather", stored); err != nil {
		t.Fatal(err)
	}
	end, _ := stored.certificateEnd()
	equal(t, "the warnings of the write", m.write("config/weather", fields{"max_ttl": "1h", "verify": false}),
		[]string{"client_certificate expired at " + rfc3339(end) + ": write a new one"})
	if got := m.read("config/weather")["max_ttl"]; got != int64(3600) {
		t.Errorf("max_ttl is %v", got)
	}
}

// Without a certificate there is nothing to say of its end.
func TestNoEndWithoutAClientCertificate(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	if end, ok := m.read("status/weather")["client_certificate_expires_at"]; ok {
		t.Errorf("the status of a secret says %v", end)
	}
	c := &config{ClientCertificate: "damaged"}
	if _, ok := c.certificateEnd(); ok || c.certificateWarning(time.Now()) != "" {
		t.Error("a damaged certificate has an end")
	}
}

// A server that is nobody's to trust does not see the certificate.
func TestClientCertificateIsNotShownToAStranger(t *testing.T) {
	ca, m := newAuthority(t), newMount(t)
	stranger := newAuthority(t).newServer(t, false)
	stranger.TLS.ClientAuth = tls.RequestClientCert
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather",
		with(ca.client(t, longLife), fields{"token_url": stranger.URL + "/token"}), "nothing was stored")
	stranger.asked(t, 0, "after the refused write")
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
		with(ca.client(t, longLife), fields{"token_url": plain.URL + "/token"}), "https")
}
