package mcpoauth

import (
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
)

// jwksPath returns the path of a server's published keys, as keys/ shows it.
func (m *mount) jwksPath(server string) string {
	m.t.Helper()
	path, _ := m.read("keys/" + server)["jwks_path"].(string)
	return path
}

// accepts reports whether an authorization server that trusts the keys at a path accepts an assertion: it must have
// the server's audience and a signature by one of the keys.
func (m *mount) accepts(path, audience, assertion string) bool {
	m.t.Helper()
	resp, err := m.do(logical.ReadOperation, path, nil)
	if err != nil {
		return false
	}
	var set jose.JSONWebKeySet
	noError(m.t, json.Unmarshal(resp.Data[logical.HTTPRawBody].([]byte), &set))
	signed := must(jose.ParseSignedCompact(assertion, signingAlgorithms))(m.t)
	for _, key := range set.Keys {
		if payload, err := signed.Verify(key); err == nil {
			var claims fields
			noError(m.t, json.Unmarshal(payload, &claims))
			return claims["aud"] == audience
		}
	}
	return false
}

// A caller who may only update a config can redirect its assertions and catch one. The authorization server that
// trusts the config's URL must refuse it.
func TestAssertionCaughtElsewhereIsTrustedNowhere(t *testing.T) {
	thiefs := newAuthServer(t)
	for name, test := range map[string]struct {
		before  fields // the config before the update
		attacks []fields
	}{
		"another key": {nil, []fields{
			{"token_url": thiefs.URL + "/token", "key_type": "ed25519"},
		}},
		"another key of the same type": {nil, []fields{
			{"token_url": thiefs.URL + "/token", "key_type": "ec-p256"},
		}},
		"through a secret": {nil, []fields{
			{"private_key": "", "publish_jwks": false, "client_secret": secret, "assertion_audience": "", "verify": false},
			{"token_url": thiefs.URL + "/token", "client_secret": secret, "verify": false},
			{"client_secret": "", "key_type": "ec-p256", "publish_jwks": true, "assertion_audience": "REAL"},
		}},
		"unpublished meanwhile": {nil, []fields{
			{"publish_jwks": false, "verify": false},
			{"token_url": thiefs.URL + "/token", "key_type": "ed25519"},
			{"publish_jwks": true, "verify": false},
		}},
		"a key of the thief's": {nil, []fields{
			{"private_key": pemOf(t, edKey(t)), "verify": false},
			{"token_url": thiefs.URL + "/token", "private_key": pemOf(t, edKey(t)), "verify": false},
		}},
		"in place of the operator's key": {fields{"key_type": "", "private_key": pemOf(t, ecKey(t, elliptic.P256()))}, []fields{
			{"private_key": pemOf(t, edKey(t)), "verify": false},
			{"token_url": thiefs.URL + "/token", "private_key": pemOf(t, edKey(t)), "verify": false},
		}},
		"a server that is discovered": {nil, []fields{
			{"token_url": "", "issuer": thiefs.URL, "key_type": "ed25519"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			thief := newAuthServer(t)
			thief.describes(nil)
			trusting := as.URL + "/token"
			client := with(as.endpoint(), fields{"key_type": "ec-p256", "publish_jwks": true, "assertion_audience": trusting, "verify": false})
			m.write("config/weather", with(client, test.before))
			registered := m.jwksPath("weather")
			m.token("weather")
			if !m.accepts(registered, trusting, as.await(1).form.Get("client_assertion")) {
				t.Fatal("the client's own assertion is not accepted")
			}
			for _, attack := range test.attacks {
				for field, value := range attack {
					if text, ok := value.(string); ok {
						attack[field] = strings.NewReplacer(thiefs.URL, thief.URL, "REAL", trusting).Replace(text)
					}
				}
				if _, ok := attack["assertion_audience"]; !ok && attack["client_secret"] == nil {
					attack["assertion_audience"] = trusting
				}
				m.write("config/weather", attack)
			}
			m.refresh("weather", nil)
			caught := thief.await(1).form.Get("client_assertion")
			if now := m.jwksPath("weather"); now == registered || !m.accepts(now, trusting, caught) {
				t.Errorf("the caught assertion would not pass the attacked server's other checks: %s", now)
			}
			if m.accepts(registered, trusting, caught) {
				t.Error("the authorization server accepts an assertion that was sent to another host")
			}
		})
	}
}

// A new config under the name of a deleted one is a different client.
func TestSuccessorOfADeletedConfigHasAnotherURL(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", made(nil))
	first := m.jwksPath("weather")
	m.delete("config/weather")
	m.write("config/weather", made(nil))
	second := m.jwksPath("weather")
	form := regexp.MustCompile(`^jwks/weather-[a-z2-7]{16}$`)
	if first == second || !form.MatchString(first) || !form.MatchString(second) {
		t.Errorf("the paths are %q and %q", first, second)
	}
	m.unpublished(strings.TrimPrefix(first, "jwks/"), "weather")
}

// The URL changes exactly when its purpose does. The write warns about it.
func TestURLOfPublishedKeysChangesWithTheirPurpose(t *testing.T) {
	m := newMount(t)
	m.write("settings", fields{"public_url": publicURL})
	key := pemOf(t, ecKey(t, elliptic.P256()))
	for _, test := range []struct {
		change  fields
		changes bool
	}{
		{fields{"max_ttl": "1h", "scopes": "a", "resource": "https://a.example.com", "client_id": "other"}, false},
		{fields{"key_type": "ed25519"}, false},
		{fields{"key_type": "ed25519", "token_url": "https://as.example.com/token"}, false},
		{fields{"key_type": "ec-p256", "token_url": "https://as.example.com/other"}, true},
		{fields{"assertion_audience": "https://as.example.com"}, true},
		{fields{"assertion_audience": "https://as.example.com", "issuer": "https://as.example.com", "key_type": "ec-p256"}, true},
		{fields{"key_type": "ec-p256", "allow_private_addresses": true}, true},
		{fields{"private_key": key}, true},
		{fields{"private_key": key, "key_id": "named"}, false},
		{fields{"key_type": "rsa-2048", "private_key": "", "key_id": "thumbprint"}, true},
		{fields{"publish_jwks": false}, true},
		{fields{"publish_jwks": true}, true},
	} {
		const server = "weather"
		if m.list("config/") == nil {
			m.write("config/weather", made(nil))
		}
		before := m.jwksPath(server)
		if test.change["private_key"] == "" {
			m.write("config/weather", fields{"private_key": "", "client_secret": secret, "key_id": "thumbprint", "publish_jwks": false, "assertion_audience": "", "verify": false})
			test.change = with(test.change, fields{"client_secret": "", "publish_jwks": true})
		}
		warnings := m.write("config/weather", with(test.change, fields{"verify": false}))
		after := m.jwksPath(server)
		equal(t, fmt.Sprint("another path after ", test.change), before != after, test.changes)
		told := slices.ContainsFunc(warnings, func(w string) bool {
			return strings.Contains(w, publicURL+"/"+after+":")
		})
		equal(t, fmt.Sprint("a warning after ", test.change), told, test.changes && after != "")
		if after == "" {
			continue
		}
		equal(t, "jwks_uri", m.read("keys/weather")["jwks_uri"], publicURL+"/"+after)
		m.jwks(server)
		if test.changes && before != "" {
			m.unpublished(strings.TrimPrefix(before, "jwks/"))
		}
	}
}

// Discovery may find a different server although the fields are the same.
func TestURLOfPublishedKeysChangesWithTheDiscoveredServer(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", fields{"server_url": mcp.url(), "client_id": "vault", "key_type": "ec-p256", "publish_jwks": true})
	before := m.jwksPath("weather")
	m.write("config/weather", fields{"rediscover": true})
	equal(t, "the path after a discovery that finds the same", m.jwksPath("weather"), before)
	as.describes(fields{"token_endpoint": as.URL + "/moved"})
	m.write("config/weather", fields{"rediscover": true})
	equal(t, "the path after a discovery of an endpoint at the same origin", m.jwksPath("weather"), before)
	thief := newAuthServer(t)
	thief.describes(nil)
	mcp.wants(thief)
	m.write("config/weather", fields{"rediscover": true, "key_type": "ed25519"})
	if m.jwksPath("weather") == before {
		t.Error("another issuer gets assertions signed by a key at the same URL")
	}
}

// After a key's URL has changed, the key is not used until the operator can register the new URL.
func TestAudienceOfAPublishedKeyThatIsBeingFoundOut(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256", "publish_jwks": true}))
	warnings := m.write("config/weather", fields{"assertion_audience": "https://as.example.com"})
	equal(t, "the number of warnings", len(warnings), 2)
	contains(t, "the warnings", strings.Join(warnings, "\n"), m.jwksPath("weather"), "refresh/weather")
	as.asked(t, 0, "before the URL can be registered")
}

// Keys stored by an earlier version are published under the server's name until they sign for a different party.
func TestURLOfKeysThatAnEarlierVersionPublished(t *testing.T) {
	for of := 1; of < 3; of++ {
		m := mountFixture(t, of)
		m.write("config/made-key", fields{"max_ttl": "1h", "verify": false})
		equal(t, fmt.Sprintf("schema %d: the path", of), m.jwksPath("made-key"), "jwks/made-key")
		m.jwks("made-key")
		m.write("config/made-key", fields{"token_url": "https://thief.example.com/token", "key_type": "ed25519"})
		if got := m.jwksPath("made-key"); got == "jwks/made-key" {
			t.Errorf("schema %d: keys for another host are at the same path", of)
		}
		m.unpublished("made-key")
		m.write("config/client-certificate", fields{
			"client_certificate": "", "client_certificate_key": "", "key_type": "ec-p256", "publish_jwks": true,
		})
		if got := m.jwksPath("client-certificate"); got == "jwks/client-certificate" {
			t.Errorf("schema %d: newly published keys are at a guessable path", of)
		}
	}
}

func TestKeySetIsNeitherLostNorSharedWhenTheURLChanges(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", made(nil))
	path := m.jwksPath("weather")
	elsewhere := made(fields{"token_url": "https://other.example.com/token", "verify": false})
	for _, call := range []string{"put config/", "get settings"} {
		m.storage.fail(call)
		m.refused(http.StatusInternalServerError, logical.UpdateOperation, "config/weather", elsewhere, errStorage.Error())
		m.storage.fail()
		equal(t, "the path after a write that failed", m.jwksPath("weather"), path)
		m.jwks("weather")
	}
}
