package mcpoauth

import "testing"

// Where a field belongs decides whether a write of it must bring the credentials again, and whether it ends what was
// proven of them. So a new field needs a decision: this list is that decision, and nothing is left out of it.
func TestEachConfigFieldIsRouteOrCredentialOrNeither(t *testing.T) {
	const neither traits = 0
	decided := map[string]traits{
		"issuer":                  isRoute,
		"token_url":               isRoute,
		"assertion_audience":      isRoute,
		"ca_cert":                 isRoute,
		"allow_insecure_http":     isRoute,
		"allow_private_addresses": isRoute,

		"identity":               isCredential,
		"grant":                  isCredential,
		"client_id":              isCredential,
		"client_secret":          isCredential,
		"raw_basic_auth":         isCredential,
		"key_id":                 isCredential,
		"signing_alg":            isCredential,
		"certificate":            isCredential,
		"client_certificate":     isCredential,
		"client_certificate_key": isCredential,
		"assertion_type":         isCredential,
		"assertion_subject":      isCredential,
		"assertion_ttl":          isCredential,
		"assertion_claims":       isCredential,

		// sameRoute compares what it leads to.
		"server_url": neither,
		// config.credentials adds them by other values than those that are read.
		"token_endpoint_auth_method": neither,
		"private_key":                neither,
		"key_type":                   neither,
		"extra_headers":              neither,

		"publish_jwks":    neither,
		"scopes":          neither,
		"resource":        neither,
		"omit_resource":   neither,
		"audience":        neither,
		"extra_params":    neither,
		"default_ttl":     neither,
		"max_ttl":         neither,
		"idle_timeout":    neither,
		"request_timeout": neither,

		// They are not stored.
		"server":     neither,
		"rediscover": neither,
		"verify":     neither,
	}
	for _, f := range configTable {
		want, ok := decided[f.name]
		if !ok {
			t.Errorf("%s is a new field: decide whether it is a route, a credential or neither", f.name)
		}
		if got := f.traits & (isRoute | isCredential); got != want {
			t.Errorf("%s has the traits %b, want %b", f.name, got, want)
		}
		delete(decided, f.name)
	}
	for name := range decided {
		t.Errorf("there is no field %s", name)
	}
}

// A list and a map may have a trait too.
func TestFieldsOfEveryTypeAreCompared(t *testing.T) {
	table := tokenParamFields(func(c *config) *tokenParams { return &c.tokenParams }, nil)
	for i := range table {
		table[i] = table[i].is(isRoute)
	}
	one := &config{tokenParams: tokenParams{Resource: []string{"a"}, ExtraParams: map[string]string{"tenant": "north"}}}
	if !table.equal(one, one.clone(), isRoute) {
		t.Error("a copy is taken for another")
	}
	for name, change := range map[string]func(*config){
		"resource":     func(c *config) { c.Resource[0] = "b" },
		"extra_params": func(c *config) { c.ExtraParams["tenant"] = "south" },
	} {
		if other := one.clone(); !table.equal(one, other, isCredential) {
			t.Errorf("%s: fields without the trait are compared", name)
		} else if change(other); table.equal(one, other, isRoute) {
			t.Errorf("another %s is taken for the same", name)
		}
	}
}
