package mcpoauth

import (
	"maps"
	"reflect"
	"slices"
	"testing"
)

// fullConfig sets every readable field of a client with a secret, each to something other than its default. It cannot
// be verified.
func fullConfig(t *testing.T) fields {
	t.Helper()
	certificate, _ := certificateAndKey(t)
	return with(defaultConfig("https://as.example.com/oauth2"), fields{
		"server_url":                 "https://weather.example.com/mcp",
		"issuer":                     "https://as.example.com/",
		"token_endpoint_auth_method": "client_secret_post",
		"scopes":                     []string{"forecast:read", "forecast:write"},
		"resource":                   []string{"https://a.example.com/", "urn:example:b"},
		"audience":                   "weather",
		"extra_params":               map[string]string{"tenant": "north", "empty": ""},
		"default_ttl":                int64(61),
		"max_ttl":                    int64(3600),
		"idle_timeout":               int64(7200),
		"ca_cert":                    certificate,
		"request_timeout":            int64(7),
		"allow_insecure_http":        true,
		"allow_private_addresses":    true,
	})
}

// defaultConfig is the shortest config of a client of the authorization server at the URL, as a read returns it.
func defaultConfig(url string) fields {
	return fields{
		"server_url":                 "",
		"issuer":                     "",
		"token_url":                  url + "/token",
		"client_id":                  "vault",
		"token_endpoint_auth_method": "",
		"scopes":                     []string{},
		"resource":                   []string{},
		"omit_resource":              false,
		"audience":                   "",
		"extra_params":               map[string]string{},
		"extra_headers":              []string{},
		"default_ttl":                int64(300),
		"max_ttl":                    int64(0),
		"idle_timeout":               int64(86400),
		"ca_cert":                    "",
		"request_timeout":            int64(10),
		"allow_insecure_http":        false,
		"allow_private_addresses":    false,

		"raw_basic_auth":     false,
		"key_type":           "",
		"signing_alg":        "",
		"certificate":        "",
		"publish_jwks":       false,
		"client_certificate": "",
		"assertion_audience": "",
		"assertion_type":     "",
		"assertion_claims":   map[string]any{},
		"assertion_subject":  "",
		"assertion_ttl":      int64(60),
		"identity":           "static",
		"grant":              "client_credentials",
	}
}

func TestEveryConfigFieldRoundTrips(t *testing.T) {
	known := map[string]bool{
		"server": true, "omit_resource": true, "verify": true, "rediscover": true,
		"assertion_subject": true, // see TestIdentityRoundTrips
	}
	for _, kind := range credentialKinds(t) {
		t.Run(kind.name, func(t *testing.T) {
			m, want := newMount(t), with(fullConfig(t), kind.full)
			m.write("config/weather", with(with(want, kind.secrets), fields{"verify": false}))
			sameFields(t, m.read("config/weather"), want)

			m.write("config/weather", fields{"resource": "", "omit_resource": true, "verify": false})
			want["resource"], want["omit_resource"] = []string{}, true
			sameFields(t, m.read("config/weather"), want)
			for field, value := range with(want, kind.secrets) {
				if !reflect.ValueOf(value).IsZero() {
					known[field] = true
				}
			}
		})
	}
	for field := range configFields() {
		if !known[field] {
			t.Errorf("no config of this test sets %s", field)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	sameFields(t, m.read("config/weather"), defaultConfig(as.URL))
}

func TestConfigUpdateChangesOnlyGivenFields(t *testing.T) {
	m, want := newMount(t), fullConfig(t)
	m.write("config/weather", with(want, fields{"client_secret": secret, "verify": false}))
	changes := fields{
		"server_url":                 "https://other.example.com/mcp",
		"client_id":                  "other",
		"token_endpoint_auth_method": "client_secret_basic",
		"scopes":                     []string{"other"},
		"resource":                   []string{"https://other.example.com/"},
		"audience":                   "other",
		"extra_params":               map[string]string{"other": "1"},
		"default_ttl":                int64(62),
		"max_ttl":                    int64(3601),
		"idle_timeout":               int64(7201),
		"request_timeout":            int64(8),
	}
	for _, field := range slices.Sorted(maps.Keys(changes)) {
		want[field] = changes[field]
		m.write("config/weather", fields{field: changes[field], "verify": false})
		sameFields(t, m.read("config/weather"), want)
	}
	equal(t, "the secret after updates without it", m.config("weather").ClientSecret, secret)
}

func TestEmptyValuesClear(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	empty := with(as.client(), fields{
		"server_url":                 "",
		"issuer":                     "",
		"token_endpoint_auth_method": "",
		"scopes":                     "",
		"resource":                   "",
		"audience":                   "",
		"default_ttl":                "5m",
		"max_ttl":                    0,
		"idle_timeout":               "24h",
		"ca_cert":                    "",
		"request_timeout":            "10s",
		"allow_insecure_http":        false,
		"allow_private_addresses":    false,
		"verify":                     false,
	})
	for _, none := range []any{fields{}, ""} { // the vault command writes an empty string for a field of any type
		m.write("config/weather", with(fullConfig(t), fields{"client_secret": secret, "verify": false}))
		m.write("config/weather", with(empty, fields{"extra_params": none}))
		sameFields(t, m.read("config/weather"), defaultConfig(as.URL))
	}
}

// Terraform and scripts write back a config as they read it.
func TestWritingBackAReadConfigChangesNothing(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"scopes": "a b"}))
	token := m.token("weather")
	for _, verify := range []bool{true, false} {
		was := m.storage.entries(t)
		m.write("config/weather", with(m.read("config/weather"), fields{"verify": verify}))
		m.write("config/weather", with(m.read("config/weather"), fields{"verify": verify, "client_secret": secret}))
		m.storage.unchanged(t, was)
	}
	m.holds("weather", token)
	as.asked(t, 1, "after writing back the config")
}

func TestOtherWordsForTheSameChangeNothing(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{
		"scopes": "a b", "extra_params": "tenant=north", "resource": "https://a.example.com,https://b.example.com",
	}))
	was := m.storage.entries(t)
	m.write("config/weather", fields{
		"scopes":                     []string{"a", "b", "a"},
		"extra_params":               fields{"tenant": "north"},
		"resource":                   []string{"https://a.example.com", "https://b.example.com"},
		"default_ttl":                "300",
		"idle_timeout":               "24h",
		"token_endpoint_auth_method": "",
		"max_ttl":                    "0s",
	})
	m.storage.unchanged(t, was)
	as.asked(t, 1, "after an update to the same")
}

// The token's shape is computed both before a config is stored and after it is read. If the two differed, every
// restart would drop the token.
func TestEmptyValuesGiveTheShapeOfAbsentOnes(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{
		"scopes": "", "resource": []string{}, "audience": "", "extra_params": fields{},
	}))
	token := m.token("weather")
	m.restart()
	m.holds("weather", token)
	as.asked(t, 1, "after a restart")
}
