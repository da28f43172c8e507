package mcpoauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// authority is a certificate authority of servers and clients.
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
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	return &authority{certificate: must(x509.ParseCertificate(der))(t), key: key, pem: encodePEM("CERTIFICATE", der)}
}

// issue makes a certificate for a name and for loopback.
func (a *authority) issue(t *testing.T, name string, life time.Duration) (certificate, key string) {
	t.Helper()
	private := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(life),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key))(t)
	return encodePEM("CERTIFICATE", der), pemOf(t, private)
}

// newServer starts an authorization server with TLS. If required is set, clients need a certificate of the authority.
func (a *authority) newServer(t *testing.T, required bool) *authServer {
	t.Helper()
	certificate, key := a.issue(t, "server", time.Hour)
	pair := must(tls.X509KeyPair([]byte(certificate), []byte(key)))(t)
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

// client is the config of a client whose certificate has this lifetime.
func (a *authority) client(t *testing.T, life time.Duration) fields {
	t.Helper()
	certificate, key := a.issue(t, "vault", life)
	return fields{"client_id": "vault", "client_certificate": certificate, "client_certificate_key": key, "ca_cert": a.pem}
}

const longLife = 60 * 24 * time.Hour

func TestClientCertificate(t *testing.T) {
	ca, m := newAuthority(t), newMount(t)
	as := ca.newServer(t, true)
	warnings := m.write("config/weather", with(ca.client(t, longLife), fields{"token_url": as.URL + "/token"}))
	equal(t, "the warnings", warnings, nil)
	shown := func(n int) string {
		t.Helper()
		request := as.await(n)
		if request.clientSecret != "" || request.form.Get("client_id") != "vault" || request.form.Has("client_secret") || request.form.Has("client_assertion") {
			t.Errorf("the request was %+v", request)
		}
		if len(request.certificates) == 0 {
			t.Fatal("the client presented no certificate")
		}
		return request.certificates[0].Subject.CommonName
	}
	equal(t, "the certificate shown", shown(1), "vault")
	m.write("config/weather", fields{"scopes": "a"})
	m.missing("keys/weather", "has no signing key")

	next, key := ca.issue(t, "next", longLife)
	m.rejects("config/weather", fields{"client_certificate": next}, "does not belong to the private key")
	m.write("config/weather", fields{"client_certificate": next, "client_certificate_key": key})
	equal(t, "the certificate shown after its replacement", shown(3), "next")
	other := newAuthority(t).client(t, longLife)
	delete(other, "ca_cert")
	was := m.storage.entries(t)
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", other, "refused the client certificate")
	m.storage.unchanged(t, was)
}

// Discovery finds another endpoint for client certificates.
func TestClientCertificateWithDiscovery(t *testing.T) {
	ca := newAuthority(t)
	for _, test := range []struct {
		method string
		alias  bool
	}{
		{"tls_client_auth", true},
		{"tls_client_auth", false},
		{"self_signed_tls_client_auth", true},
		{"self_signed_tls_client_auth", false},
	} {
		t.Run(fmt.Sprint(test.method, ", an alias: ", test.alias), func(t *testing.T) {
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
			equal(t, "discovered_token_url", read["discovered_token_url"], as.URL+"/token")
			was := m.storage.entries(t)
			m.write("config/weather", read)
			m.write("config/weather", with(read, fields{"verify": false}))
			m.storage.unchanged(t, was)

			// Another issuer, without the key in the write.
			thief := ca.newServer(t, false)
			thief.describes(nil)
			mcp.wants(thief)
			m.rejects("config/weather", fields{"rediscover": true}, "write the credentials too")
			m.storage.unchanged(t, was)
			thief.asked(t, 0, "after the refused write")
		})
	}
}

// If the endpoint for certificates cannot be called, a certificate is not sent to the general endpoint.
func TestAliasThatCanNotBeUsedIsSaidToCertificatesAlone(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"mtls_endpoint_aliases": fields{"token_endpoint": "https://10.0.0.1/token"}})
	equal(t, "the warnings of a secret", m.write("config/weather", mcp.client()), nil)
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather",
		with(newAuthority(t).client(t, longLife), fields{"client_secret": ""}),
		"at 10.0.0.1:", "10.0.0.1 (private) is not called without allow_private_addresses=true")
	as.asked(t, 1, "after the refused write")
}

// A secret goes to the general endpoint.
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
			t.Errorf("for a certificate of %s, the status gives an end in %s", test.life, left)
		}
		for where, got := range map[string][]string{"the write": warnings, "status": status["warnings"].([]string)} {
			want := map[bool]string{true: "client_certificate expires at " + rfc3339(end)}[test.warns]
			warns(t, fmt.Sprintf("%s of a certificate of %s", where, test.life), got, want)
		}
		m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
		shows(t, m.read("status/weather/reader"), fields{"client_certificate_expires_at": rfc3339(end)})
	}
	as, m := ca.newServer(t, true), newMount(t)
	for _, verify := range []bool{true, false} {
		m.rejects("config/weather",
			with(ca.client(t, -time.Second), fields{"token_url": as.URL + "/token", "verify": verify}), "client_certificate expired at", "write one that is valid")
	}
	as.asked(t, 0, "after expired certificates")
}

func TestConfigWithAnExpiredClientCertificateCanBeChanged(t *testing.T) {
	as, m, ca := newAuthServer(t), newMount(t), newAuthority(t)
	m.configure(as, nil)
	m.edit("weather", func(c *config) {
		c.ClientSecret, c.TokenURL = "", "https://as.example.com/token"
		c.ClientCertificate, c.ClientCertificateKey = ca.issue(t, "vault", -time.Second)
	})
	end, _ := m.config("weather").certificateEnd()
	equal(t, "the warnings of the write", m.write("config/weather", fields{"max_ttl": "1h", "verify": false}),
		[]string{"client_certificate expired at " + rfc3339(end) + ": write a new one"})
	equal(t, "max_ttl", m.read("config/weather")["max_ttl"], int64(3600))
}

func TestNoEndWithoutAClientCertificate(t *testing.T) {
	_, m := newConfigured(t)
	equal(t, "client_certificate_expires_at", m.read("status/weather")["client_certificate_expires_at"], nil)
	c := &config{ClientCertificate: "damaged"}
	if _, ok := c.certificateEnd(); ok || c.certificateWarning(time.Now()) != "" {
		t.Error("a damaged certificate has an end")
	}
}

// An untrusted server does not see the certificate.
func TestClientCertificateIsNotShownToAStranger(t *testing.T) {
	ca, m := newAuthority(t), newMount(t)
	stranger := newAuthority(t).newServer(t, false)
	stranger.TLS.ClientAuth = tls.RequestClientCert
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather",
		with(ca.client(t, longLife), fields{"token_url": stranger.URL + "/token"}), "nothing was stored")
	stranger.asked(t, 0, "after the refused write")
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	m.rejects("config/weather", with(ca.client(t, longLife), fields{"token_url": plain.URL + "/token"}), "https")
}
