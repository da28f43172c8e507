package mcpoauth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"testing"
	"time"
)

// fullConfig sets every field that is read back, none to its default. It cannot be
// verified.
func fullConfig(t *testing.T) fields {
	t.Helper()
	certificate, _ := certificateAndKey(t)
	return fields{
		"server_url":                 "https://weather.example.com/mcp",
		"token_url":                  "https://as.example.com/oauth2/token",
		"client_id":                  "vault",
		"token_endpoint_auth_method": "client_secret_post",
		"scopes":                     []string{"forecast:read", "forecast:write"},
		"resource":                   []string{"https://a.example.com/", "urn:example:b"},
		"omit_resource":              false,
		"audience":                   "weather",
		"extra_params":               map[string]string{"tenant": "north", "empty": ""},
		"default_ttl":                int64(61),
		"max_ttl":                    int64(3600),
		"idle_timeout":               int64(7200),
		"ca_cert":                    certificate,
		"request_timeout":            int64(7),
		"allow_insecure_http":        true,
	}
}

// certificateAndKey makes a certificate and its private key, both as PEM.
func certificateAndKey(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		var b bytes.Buffer
		_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der})
		return b.String()
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
}

// defaultConfig is what a config of a client with nothing but the necessary reads as.
func defaultConfig(as *authServer) fields {
	return fields{
		"server_url":                 "",
		"token_url":                  as.URL + "/token",
		"client_id":                  "vault",
		"token_endpoint_auth_method": "",
		"scopes":                     []string{},
		"resource":                   []string{},
		"omit_resource":              false,
		"audience":                   "",
		"extra_params":               map[string]string{},
		"default_ttl":                int64(300),
		"max_ttl":                    int64(0),
		"idle_timeout":               int64(86400),
		"ca_cert":                    "",
		"request_timeout":            int64(10),
		"allow_insecure_http":        false,
	}
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
	m, want := newMount(t), fullConfig(t)
	m.write("config/weather", with(want, fields{"client_secret": secret, "verify": false}))
	sameFields(t, m.read("config/weather"), want)

	omitting := with(want, fields{"resource": []string{}, "omit_resource": true})
	m.write("config/weather", fields{"resource": "", "omit_resource": true, "verify": false})
	sameFields(t, m.read("config/weather"), omitting)

	all := with(want, fields{"server": "", "client_secret": "", "verify": false})
	if fields, known := slices.Sorted(maps.Keys(configFields())), slices.Sorted(maps.Keys(all)); !slices.Equal(fields, known) {
		t.Errorf("the fields are %q; this test knows %q", fields, known)
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
	if got := m.token("weather"); got != token {
		t.Errorf("the token is %q; want the one before, %q", got, token)
	}
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
	if got := m.token("weather"); got != token {
		t.Errorf("after a restart the token is %q; want the one before, %q", got, token)
	}
	as.asked(t, 1, "after a restart")
}
