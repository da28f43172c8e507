package mcpoauth

import (
	"crypto/elliptic"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
)

// jwksPath is the path at which the keys of a server are published, as keys/ shows it.
func (m *mount) jwksPath(server string) string {
	m.t.Helper()
	path, _ := m.read("keys/" + server)["jwks_path"].(string)
	return path
}

// accepts reports whether an authorization server that fetches a client's keys from a path of the mount takes
// an assertion: it is for the server's audience, and signed by a key that is published there.
func (m *mount) accepts(path, audience, assertion string) bool {
	m.t.Helper()
	resp, err := m.do(logical.ReadOperation, path, nil)
	if err != nil {
		return false
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(resp.Data[logical.HTTPRawBody].([]byte), &set); err != nil {
		m.t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA})
	if err != nil {
		m.t.Fatal(err)
	}
	for _, key := range set.Keys {
		payload, err := signed.Verify(key)
		if err != nil {
			continue
		}
		var claims struct {
			Audience string `json:"aud"`
		}
		if err := json.Unmarshal(payload, &claims); err != nil {
			m.t.Fatal(err)
		}
		return claims.Audience == audience
	}
	return false
}

// A Vault token that may only update a config can have the client sign for the authorization server that
// trusts the config's URL, and catch the assertion. It must be of no use there.
func TestAssertionCaughtElsewhereIsTrustedNowhere(t *testing.T) {
	thiefs := newAuthServer(t)
	for name, test := range map[string]struct {
		before  fields // of the config
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
			if _, err := m.do(logical.UpdateOperation, "refresh/weather", nil); err != nil {
				t.Fatal(err)
			}
			caught := thief.await(1).form.Get("client_assertion")
			if now := m.jwksPath("weather"); now == registered || !m.accepts(now, trusting, caught) {
				t.Errorf("the assertion that was caught is not as good as the attack needs: %s", now)
			}
			if m.accepts(registered, trusting, caught) {
				t.Error("the authorization server accepts an assertion that was sent to another host")
			}
		})
	}
}

// A config that is created under the name of a deleted one is another client.
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

// The URL changes if what it is trusted for does, and only then; the write says so.
func TestURLOfPublishedKeysChangesWithWhatItIsTrustedFor(t *testing.T) {
	m := newMount(t)
	m.write("settings", fields{"public_url": "https://vault.example.com/v1/mcp-oauth"})
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
		if (before != after) != test.changes {
			t.Errorf("%v: the path was %q and is %q", test.change, before, after)
		}
		told := slices.ContainsFunc(warnings, func(w string) bool {
			return strings.Contains(w, "https://vault.example.com/v1/mcp-oauth/"+after+":")
		})
		if told != (test.changes && after != "") {
			t.Errorf("%v: the warnings are %q", test.change, warnings)
		}
		if uri := m.read("keys/weather")["jwks_uri"]; after != "" && uri != "https://vault.example.com/v1/mcp-oauth/"+after {
			t.Errorf("jwks_uri is %v", uri)
		}
		if after == "" {
			continue
		}
		m.jwks(server)
		if test.changes && before != "" {
			m.unpublished(strings.TrimPrefix(before, "jwks/"))
		}
	}
}

// Discovery may find another server behind the same fields.
func TestURLOfPublishedKeysChangesWithWhatDiscoveryFinds(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", fields{"server_url": mcp.url(), "client_id": "vault", "key_type": "ec-p256", "publish_jwks": true})
	before := m.jwksPath("weather")
	m.write("config/weather", fields{"rediscover": true})
	if got := m.jwksPath("weather"); got != before {
		t.Errorf("a discovery that finds the same changes %q to %q", before, got)
	}
	as.describes(fields{"token_endpoint": as.URL + "/moved"})
	m.write("config/weather", fields{"rediscover": true})
	if got := m.jwksPath("weather"); got != before {
		t.Errorf("an endpoint at the same origin changes %q to %q", before, got)
	}
	thief := newAuthServer(t)
	thief.describes(nil)
	mcp.wants(thief)
	m.write("config/weather", fields{"rediscover": true, "key_type": "ed25519"})
	if got := m.jwksPath("weather"); got == before {
		t.Error("another issuer gets assertions that are trusted at the same URL")
	}
}

// Keys that only another URL has to be registered for are not tried at once.
func TestAudienceOfAPublishedKeyThatIsBeingFoundOut(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256", "publish_jwks": true}))
	warnings := m.write("config/weather", fields{"assertion_audience": "https://as.example.com"})
	if len(warnings) != 2 || !strings.Contains(warnings[0], m.jwksPath("weather")) || !strings.Contains(warnings[1], "refresh/weather") {
		t.Errorf("the warnings are %q", warnings)
	}
	as.asked(t, 0, "before the URL can be registered")
}

// What an earlier version stored is published under the server's own name until it would be trusted for
// something else.
func TestURLOfKeysThatAnEarlierVersionPublished(t *testing.T) {
	for of := 1; of < 3; of++ {
		m := mountFixture(t, of)
		m.write("config/made-key", fields{"max_ttl": "1h", "verify": false})
		if got := m.jwksPath("made-key"); got != "jwks/made-key" {
			t.Errorf("schema %d: the path is %q", of, got)
		}
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
			t.Errorf("schema %d: keys that begin to be published are at a path that can be guessed", of)
		}
	}
}

func TestKeySetIsNeitherLostNorSharedWhenTheURLChanges(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", made(nil))
	path := m.jwksPath("weather")
	m.storage.fail("put config/")
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "config/weather", made(fields{"token_url": "https://other.example.com/token", "verify": false}), errStorage.Error())
	m.storage.fail()
	if got := m.jwksPath("weather"); got != path {
		t.Errorf("after a write that failed the path is %q; want %q", got, path)
	}
	m.jwks("weather")
	m.storage.fail("get settings")
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "config/weather", made(fields{"token_url": "https://other.example.com/token", "verify": false}), errStorage.Error())
	m.storage.fail()
	if got := m.jwksPath("weather"); got != path {
		t.Errorf("after a write that failed the path is %q; want %q", got, path)
	}
}
