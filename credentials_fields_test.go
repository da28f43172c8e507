package mcpoauth

import "testing"

// A write of a route field must supply the credentials; a write of a credential field makes them unverified. Each
// field is listed here: a new field needs an entry.
func TestEachConfigFieldIsRouteOrCredentialOrNeither(t *testing.T) {
	const neither traits = 0
	decided := map[string]traits{}
	for is, names := range map[traits][]string{
		isRoute: {"issuer", "token_url", "assertion_audience", "ca_cert", "allow_insecure_http", "allow_private_addresses"},
		isCredential: {
			"identity", "grant", "client_id", "client_secret", "raw_basic_auth", "key_id", "signing_alg", "certificate",
			"client_certificate", "client_certificate_key",
			"assertion_type", "assertion_subject", "assertion_ttl", "assertion_claims",
		},
		neither: {
			"server_url", // sameRoute compares the resulting route
			// config.credentials holds these by other values than those a read returns.
			"token_endpoint_auth_method", "private_key", "key_type", "extra_headers",
			"publish_jwks", "scopes", "resource", "omit_resource", "audience", "extra_params",
			"default_ttl", "max_ttl", "idle_timeout", "request_timeout",
			"server", "rediscover", "verify", // not stored
		},
	} {
		for _, name := range names {
			decided[name] = is
		}
	}
	for _, f := range configTable {
		want, ok := decided[f.name]
		if !ok {
			t.Errorf("%s is a new field: decide whether it is a route, a credential or neither", f.name)
		}
		equal(t, f.name+": the traits", f.traits&(isRoute|isCredential), want)
		delete(decided, f.name)
	}
	for name := range decided {
		t.Errorf("there is no field %s", name)
	}
}

func TestFieldsOfEveryTypeAreCompared(t *testing.T) {
	table := tokenParamFields(func(c *config) *tokenParams { return &c.tokenParams }, nil)
	for i := range table {
		table[i] = table[i].is(isRoute)
	}
	one := &config{tokenParams: tokenParams{Resource: []string{"a"}, ExtraParams: map[string]string{"tenant": "north"}}}
	if !table.equal(one, one.clone(), isRoute) {
		t.Error("a copy does not equal the original")
	}
	for name, change := range map[string]func(*config){
		"resource":     func(c *config) { c.Resource[0] = "b" },
		"extra_params": func(c *config) { c.ExtraParams["tenant"] = "south" },
	} {
		if other := one.clone(); !table.equal(one, other, isCredential) {
			t.Errorf("%s: fields without the trait are compared", name)
		} else if change(other); table.equal(one, other, isRoute) {
			t.Errorf("a different %s is not noticed", name)
		}
	}
}
