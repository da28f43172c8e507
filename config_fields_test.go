package mcpoauth

import (
	"maps"
	"reflect"
	"slices"
	"testing"
)

// fullConfig sets every field that is read back and does not belong to other credentials
// than a secret, none to its default. It cannot be verified.
func fullConfig(t *testing.T) fields {
	t.Helper()
	certificate, _ := certificateAndKey(t)
	return with(noCredentials, fields{
		"server_url":                 "https://weather.example.com/mcp",
		"issuer":                     "https://as.example.com/",
		"token_url":                  "https://as.example.com/oauth2/token",
		"client_id":                  "vault",
		"token_endpoint_auth_method": "client_secret_post",
		"scopes":                     []string{"forecast:read", "forecast:write"},
		"resource":                   []string{"https://a.example.com/", "urn:example:b"},
		"omit_resource":              false,
		"audience":                   "weather",
		"extra_params":               map[string]string{"tenant": "north", "empty": ""},
		"extra_headers":              []string{},
		"default_ttl":                int64(61),
		"max_ttl":                    int64(3600),
		"idle_timeout":               int64(7200),
		"ca_cert":                    certificate,
		"request_timeout":            int64(7),
		"allow_insecure_http":        true,
		"allow_private_addresses":    true,
	})
}

// noCredentials is what the fields that belong to keys and certificates read as without
// any.
var noCredentials = fields{
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

// defaultConfig is what a config of a client with nothing but the necessary reads as.
func defaultConfig(as *authServer) fields {
	return with(noCredentials, fields{
		"server_url":                 "",
		"issuer":                     "",
		"token_url":                  as.URL + "/token",
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
	})
}

// sameFields compares what was read, types included.
func sameFields(t *testing.T, got, want fields) {
	t.Helper()
	for _, field := range slices.Sorted(maps.Keys(with(got, want))) {
		if !reflect.DeepEqual(got[field], want[field]) {
			t.Errorf("%s is %#v; want %#v", field, got[field], want[field])
		}
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
	sameFields(t, m.read("config/weather"), defaultConfig(as))
}

func TestConfigUpdateChangesOnlyWhatIsGiven(t *testing.T) {
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
	c, err := m.store().config(t.Context(), "weather")
	if err != nil || c.ClientSecret != secret {
		t.Errorf("after updates without it the secret is %q, %v", c.ClientSecret, err)
	}
}

func TestEmptyValuesClear(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(fullConfig(t), fields{"client_secret": secret, "verify": false}))
	m.write("config/weather", with(as.client(), fields{
		"server_url":                 "",
		"issuer":                     "",
		"token_endpoint_auth_method": "",
		"scopes":                     "",
		"resource":                   "",
		"audience":                   "",
		"extra_params":               fields{},
		"default_ttl":                "5m",
		"max_ttl":                    0,
		"idle_timeout":               "24h",
		"ca_cert":                    "",
		"request_timeout":            "10s",
		"allow_insecure_http":        false,
		"allow_private_addresses":    false,
		"verify":                     false,
	}))
	sameFields(t, m.read("config/weather"), defaultConfig(as))
}

// With the vault command an empty value is an empty string, whatever the field's type.
func TestEmptyStringClearsExtraParams(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, fields{"extra_params": "tenant=north"})
	m.write("config/weather", fields{"extra_params": "", "verify": false})
	sameFields(t, m.read("config/weather"), defaultConfig(as))
}

// Terraform and scripts write back what they read.
func TestWritingBackWhatWasReadChangesNothing(t *testing.T) {
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
	as.asked(t, 1, "after writing back what was read")
}

// What is written in other words is the same.
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

// A token's shape is computed before the config is stored and again after it is read:
// the two must agree, or a restart would lose the token.
func TestEmptyValuesGiveTheShapeOfAbsentOnes(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{
		"scopes": "", "resource": []string{}, "audience": "", "extra_params": fields{},
	}))
	token := m.token("weather")
	m.stop()
	m.start()
	m.holds("weather", token)
	as.asked(t, 1, "after a restart")
}
