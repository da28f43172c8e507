package mcpoauth

import (
	"crypto/elliptic"
	"crypto/tls"
	"strings"
	"testing"
)

// routeChange is a write that changes the route of credentials.
type routeChange struct {
	name      string
	base      func(*places) fields // the config before the write, without credentials
	change    func(*places) fields // the write
	discovers bool                 // the write leads to a discovery
	keysOnly  bool                 // for signing keys only
}

// places are the servers in a config, and a thief's servers.
type places struct {
	as, thief       *authServer
	mcp, thiefs     *mcpServer
	caCert, otherCA string
}

// asked returns the number of all requests.
func (p *places) asked() int {
	return p.as.count() + p.as.looked() + p.thief.count() + p.thief.looked() + p.mcp.called() + p.thiefs.called()
}

func (p *places) atTokenURL() fields { return p.as.endpoint() }

func (p *places) withCA() fields { return with(p.atTokenURL(), fields{"ca_cert": p.caCert}) }

func (p *places) atServerURL() fields { return fields{"server_url": p.mcp.url(), "client_id": "vault"} }

func thiefsTokenURL(p *places) fields { return fields{"token_url": p.thief.URL + "/token"} }

func thiefsIssuer(p *places) fields { return fields{"issuer": p.thief.URL} }

func newPlaces(t *testing.T) *places {
	t.Helper()
	p := &places{as: newAuthServer(t), thief: newAuthServer(t)}
	p.mcp, p.thiefs = newMCPServer(t, p.as, nil), newMCPServer(t, p.thief, nil)
	p.caCert, _ = certificateAndKey(t)
	p.otherCA, _ = certificateAndKey(t)
	return p
}

var routeChanges = []routeChange{
	{name: "token_url", base: (*places).atTokenURL, change: thiefsTokenURL},
	{name: "token_url to another path", base: (*places).atTokenURL, change: func(p *places) fields {
		return fields{"token_url": p.as.URL + "/echo"}
	}},
	{name: "token_url set", base: (*places).atServerURL, change: thiefsTokenURL},
	{name: "token_url emptied", base: func(p *places) fields {
		return with(p.atTokenURL(), fields{"server_url": p.thiefs.url()})
	}, change: func(*places) fields { return fields{"token_url": ""} }, discovers: true},
	{name: "issuer", base: func(p *places) fields {
		return fields{"issuer": p.as.URL, "client_id": "vault"}
	}, change: thiefsIssuer, discovers: true},
	{name: "issuer set", base: (*places).atServerURL, change: thiefsIssuer, discovers: true},
	{name: "issuer emptied", base: func(p *places) fields {
		return fields{"issuer": p.as.URL, "server_url": p.thiefs.url(), "client_id": "vault"}
	}, change: func(*places) fields { return fields{"issuer": ""} }, discovers: true},
	{name: "issuer beside token_url, an assertion's audience", base: (*places).atTokenURL, change: thiefsIssuer},
	{name: "server_url", base: (*places).atServerURL, change: func(p *places) fields {
		return fields{"server_url": p.thiefs.url()}
	}, discovers: true},
	{name: "assertion_audience", base: (*places).atTokenURL, change: func(*places) fields {
		return fields{"assertion_audience": "https://other.example.com"}
	}, keysOnly: true},
	{name: "assertion_audience emptied", base: func(p *places) fields {
		return with(p.atTokenURL(), fields{"assertion_audience": "https://other.example.com"})
	}, change: func(*places) fields { return fields{"assertion_audience": ""} }, keysOnly: true},
	{name: "ca_cert set", base: (*places).atTokenURL, change: func(p *places) fields { return fields{"ca_cert": p.caCert} }},
	{name: "ca_cert", base: (*places).withCA, change: func(p *places) fields { return fields{"ca_cert": p.otherCA} }},
	{name: "ca_cert emptied", base: (*places).withCA, change: func(*places) fields { return fields{"ca_cert": ""} }},
	{name: "allow_insecure_http", base: (*places).atTokenURL, change: func(*places) fields { return fields{"allow_insecure_http": true} }},
	{name: "allow_insecure_http taken back", base: func(p *places) fields {
		return with(p.atTokenURL(), fields{"allow_insecure_http": true})
	}, change: func(*places) fields { return fields{"allow_insecure_http": false} }},
	{name: "allow_private_addresses", base: (*places).atServerURL, change: func(*places) fields { return fields{"allow_private_addresses": true} }},
	{name: "allow_private_addresses taken back", base: func(p *places) fields {
		return with(p.atServerURL(), fields{"allow_private_addresses": true})
	}, change: func(*places) fields { return fields{"allow_private_addresses": false} }},
	{name: "rediscover beside them", base: (*places).atServerURL, change: func(p *places) fields {
		return fields{"server_url": p.thiefs.url(), "rediscover": true}
	}, discovers: true},
}

// A caller who may only update a config must not be able to redirect its secret, an assertion or the proof of a
// certificate to another host.
func TestCredentialsGoOnlyToTheirServer(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		if kind.name == "client certificate" {
			continue // needs TLS: see TestClientCertificateGoesOnlyToItsServer
		}
		for _, route := range routeChanges {
			if route.keysOnly && kind.name == "secret" {
				continue
			}
			t.Run(kind.name+", "+route.name, func(t *testing.T) {
				m, p := newMount(t), newPlaces(t)
				m.write("config/weather", with(route.base(p), kind.give))
				if route.keysOnly {
					m.token("weather") // before its first token, the audience may change
				}
				was, asked, change := m.storage.entries(t), p.asked(), route.change(p)
				for _, without := range []fields{{}, {"verify": false}, {"client_id": "thief", "scopes": "all"}} {
					m.rejects("config/weather", with(change, without), "must supply "+kind.field+" too")
				}
				m.storage.unchanged(t, was)
				equal(t, "requests by the refused writes", p.asked()-asked, 0)

				m.write("config/weather", with(with(change, kind.bring), fields{"verify": route.discovers}))
				if n := p.asked() - asked; (n > 0) != route.discovers {
					t.Errorf("the write with the credentials made %d requests", n)
				}
				for field, want := range change {
					if got := m.read("config/weather")[field]; field != "rediscover" && got != want {
						t.Errorf("%s is %v; want %v", field, got, want)
					}
				}
			})
		}
	}
}

// A client certificate needs https, so this config is not discovered.
func TestClientCertificateGoesOnlyToItsServer(t *testing.T) {
	certificate := credentialKinds(t)[3]
	const tokenURL = "https://as.example.com/token"
	for _, change := range []fields{
		{"token_url": "https://thief.example.com/token"},
		{"token_url": "", "server_url": "https://thief.example.com/mcp"},
		{"token_url": "", "issuer": "https://thief.example.com"},
		{"issuer": "https://thief.example.com"},
		{"ca_cert": certificate.give["client_certificate"]},
		{"allow_insecure_http": true},
		{"allow_private_addresses": true},
	} {
		m := newMount(t)
		m.write("config/weather", with(certificate.give, fields{"token_url": tokenURL, "client_id": "vault", "verify": false}))
		was := m.storage.entries(t)
		for _, without := range []fields{{}, {"verify": false}, {"client_certificate": certificate.give["client_certificate"]}} {
			m.rejects("config/weather", with(change, without), "must supply client_certificate_key too")
		}
		m.storage.unchanged(t, was)
		if change["token_url"] != "" {
			m.write("config/weather", with(with(change, certificate.bring), fields{"verify": false}))
		}
	}
}

// With token_url set, server_url only names a resource.
func TestServerURLBesideTokenURLNeedsNoCredentials(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		m, p := newMount(t), newPlaces(t)
		p.as = newAuthority(t).newServer(t, false)
		m.write("config/weather", with(with(p.atTokenURL(), kind.give), fields{"verify": false}))
		m.write("config/weather", fields{"server_url": p.thiefs.url(), "verify": false})
		equal(t, kind.name+": requests by the writes", p.asked(), 0)
	}
}

// A write that names another server makes a new key.
func TestPluginMadeKeyDoesNotMove(t *testing.T) {
	m, p := newMount(t), newPlaces(t)
	m.write("config/weather", with(p.atTokenURL(), fields{"key_type": "ec-p256"}))
	before := m.read("keys/weather")["active_key_id"]
	m.write("config/weather", fields{"token_url": p.thief.URL + "/token", "key_type": "ec-p256"})
	if keys, _ := m.keys("weather"); len(keys) != 1 || keys[0] == before {
		t.Errorf("the key was %v and is %v", before, keys)
	}
	m.write("config/weather", fields{"token_url": p.as.URL + "/token", "private_key": pemOf(t, edKey(t)), "verify": false})
	equal(t, "key_type beside the operator's key", m.read("config/weather")["key_type"], "")
}

func TestSecretGoesToTheNewPlaceWhenItIsGiven(t *testing.T) {
	before, after := newAuthServer(t), newAuthServer(t)
	m := newMount(t)
	m.write("config/weather", before.client())
	m.write("config/weather", fields{"token_url": after.URL + "/token", "client_secret": "new-" + secretMark})
	equal(t, "the secret at the new server", after.await(1).clientSecret, "new-"+secretMark)
	before.asked(t, 1, "after the move")
}

// The same issuer's metadata may name an endpoint at another host.
func TestRediscoveredEndpointAtAnotherOriginNeedsTheCredentials(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		if kind.name == "client certificate" {
			continue // needs TLS: see TestRediscoveredAliasAtAnotherOriginNeedsTheCredentials
		}
		for _, change := range []fields{{}, {"scopes": "all"}, {"client_id": "thief"}} {
			m, as, mcp := discoverable(t, nil)
			m.write("config/weather", with(fields{"server_url": mcp.url(), "client_id": "vault"}, kind.give))
			m.token("weather")
			thief := newAuthServer(t)
			as.describes(fields{"token_endpoint": thief.URL + "/token"})
			was, asked := m.storage.entries(t), as.count()
			m.rejects("config/weather", with(change, fields{"rediscover": true}),
				"token endpoint", thief.URL, as.URL, strings.Fields(kind.field)[0])
			m.storage.unchanged(t, was)
			thief.asked(t, 0, kind.name+": after the refused write")
			as.asked(t, asked, kind.name+": after the refused write")

			if kind.name == "plugin-made key" {
				before := m.read("keys/weather")["active_key_id"]
				m.write("config/weather", fields{"rediscover": true, "key_type": "ed25519"})
				if m.read("keys/weather")["active_key_id"] == before {
					t.Error("the key has moved to another origin")
				}
			} else {
				m.write("config/weather", with(kind.bring, fields{"rediscover": true}))
				thief.asked(t, 1, kind.name+": after the write with the credentials")
			}
			equal(t, kind.name+": the endpoint", m.read("config/weather")["discovered_token_url"], thief.URL+"/token")
		}
	}
}

// Another path of the same origin is the same server.
func TestRediscoveredEndpointAtTheSameOriginNeedsNoCredentials(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		if kind.name == "client certificate" {
			continue
		}
		m, as, mcp := discoverable(t, nil)
		m.write("config/weather", with(fields{"server_url": mcp.url(), "client_id": "vault"}, kind.give))
		as.describes(fields{"token_endpoint": as.URL + "/other"})
		m.write("config/weather", fields{"rediscover": true})
		equal(t, kind.name+": the endpoint", m.read("config/weather")["discovered_token_url"], as.URL+"/other")
	}
}

// A client certificate goes to the endpoint's alias for mutual TLS.
func TestRediscoveredAliasAtAnotherOriginNeedsTheCredentials(t *testing.T) {
	alias := func(as *authServer) fields {
		return fields{"mtls_endpoint_aliases": fields{"token_endpoint": as.URL + "/token"}}
	}
	atMTLS := func(mtls, _ *authServer) fields { return alias(mtls) }
	atThief := func(_, thief *authServer) fields { return alias(thief) }
	none := func(_, _ *authServer) fields { return nil }
	for _, test := range []struct {
		name        string
		first, then func(mtls, thief *authServer) fields
		refused     bool
	}{
		{"the alias moves", atMTLS, atThief, true},
		{"an alias appears", none, atThief, true},
		{"the alias goes", atMTLS, none, true},
		{"the endpoint for secrets moves", atMTLS, func(mtls, thief *authServer) fields {
			return with(alias(mtls), fields{"token_endpoint": thief.URL + "/token"})
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ca := newAuthority(t)
			m, as, mtls, thief := newMount(t), ca.newServer(t, false), ca.newServer(t, true), ca.newServer(t, false)
			as.TLS.ClientAuth = tls.RequestClientCert
			mcp := newMCPServer(t, as, test.first(mtls, thief))
			m.write("config/weather", with(ca.client(t, longLife), fields{"server_url": mcp.url()}))
			was := m.storage.entries(t)
			as.describes(test.then(mtls, thief))
			if !test.refused {
				m.write("config/weather", fields{"rediscover": true})
				thief.asked(t, 0, "after a write that concerns other clients")
				return
			}
			m.rejects("config/weather", fields{"rediscover": true}, "client_certificate_key")
			m.storage.unchanged(t, was)
			thief.asked(t, 0, "after the refused write")
		})
	}
}

// Operators often find the right audience of assertions by trial. Before a key's first token, the audience may change
// without a new key, which the operator would have to register.
func TestAudienceOfAKeyThatWasNeverVerifiedMayChange(t *testing.T) {
	key := pemOf(t, ecKey(t, elliptic.P256()))
	for _, kind := range []fields{{"key_type": "ec-p256"}, {"private_key": key}} {
		as, m := newAuthServer(t), newMount(t)
		m.write("config/weather", with(with(as.endpoint(), kind), fields{"verify": false}))
		was := m.read("keys/weather")["active_key_id"]
		as.answers(refusing(401, "invalid_client"))
		m.rejects("config/weather", fields{"assertion_audience": "https://wrong.example.com"},
			`aud "https://wrong.example.com"`, "assertion_audience=, assertion_type=, signing_alg= and key_id=")
		as.answers(granting(nil))
		m.write("config/weather", with(kind, fields{"assertion_audience": "https://right.example.com", "assertion_type": "client-authentication+jwt"}))
		equal(t, "the audience", m.asserted(as.await(2)).Audience, "https://right.example.com")
		equal(t, "the key", m.read("keys/weather")["active_key_id"], was)
		// The key is verified now.
		m.rejects("config/weather", fields{"assertion_audience": "https://other.example.com"}, "must supply")
		m.write("config/weather", fields{"assertion_type": "JWT"})
	}
}
