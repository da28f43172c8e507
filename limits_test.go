package mcpoauth

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
)

// atLength returns, by field, a function that makes a value of n bytes for it, with the other fields that a write
// needs.
func atLength(t *testing.T) map[string]func(n int) fields {
	t.Helper()
	certificate, key := certificateAndKey(t)
	text := func(field string) func(n int) fields {
		return func(n int) fields { return fields{field: long(n)} }
	}
	address := func(field string) func(n int) fields {
		return func(n int) fields { return fields{field: urlOf(n), "client_secret": secret} }
	}
	// PEM allows text before the first block.
	pem := func(field, block string, needs fields) func(n int) fields {
		return func(n int) fields { return with(needs, fields{field: long(n-len(block)-1) + "\n" + block}) }
	}
	signing := fields{"client_secret": "", "private_key": key}
	tls := fields{"client_secret": "", "client_certificate": certificate, "client_certificate_key": key, "token_url": "https://as.example.com/token"}
	return map[string]func(n int) fields{
		"server_url":             address("server_url"),
		"issuer":                 address("issuer"),
		"token_url":              address("token_url"),
		"client_id":              text("client_id"),
		"client_secret":          text("client_secret"),
		"private_key":            pem("private_key", key, signing),
		"key_id":                 func(n int) fields { return with(signing, fields{"key_id": long(n)}) },
		"certificate":            pem("certificate", certificate, signing),
		"client_certificate":     pem("client_certificate", certificate, tls),
		"client_certificate_key": pem("client_certificate_key", key, tls),
		"assertion_audience":     func(n int) fields { return with(signing, fields{"assertion_audience": long(n)}) },
		"assertion_subject": func(n int) fields {
			return with(signing, fields{"private_key": "", "identity": "issuer", "client_id": "", "assertion_subject": long(n)})
		},
		"assertion_claims": func(n int) fields { return with(signing, fields{"assertion_claims": fields{"a": long(n)}}) },
		"scopes":           text("scopes"),
		"resource":         func(n int) fields { return fields{"resource": []string{urlOf(n)}} },
		"audience":         text("audience"),
		"extra_params":     func(n int) fields { return fields{"extra_params": fields{"tenant": long(n)}} },
		"extra_headers":    func(n int) fields { return fields{"extra_headers": fields{"x-key": long(n)}} },
		"ca_cert":          pem("ca_cert", certificate, fields{"client_secret": secret}),
	}
}

func urlOf(n int) string {
	const start = "https://as.example.com/"
	return start + long(n-len(start))
}

// atNumber returns, by field, a function that makes n values for it.
var atNumber = map[string]func(n int) any{
	"scopes":           func(n int) any { return strings.Join(numbered(n), " ") },
	"resource":         func(n int) any { return numberedURLs(n) },
	"extra_params":     numberedPairs,
	"assertion_claims": numberedPairs,
	"extra_headers":    numberedPairs,
}

func numberedPairs(n int) any {
	params := fields{}
	for _, name := range numbered(n) {
		params[name] = "value"
	}
	return params
}

func TestEveryFieldHasItsLimit(t *testing.T) {
	lengths := atLength(t)
	for field, limit := range limits {
		if configFields()[field] == nil {
			continue // see TestPublicURL
		}
		t.Run(field, func(t *testing.T) {
			_, ofRoles := roleTable.written()[field]
			value := lengths[field]
			atLimit(t, ofRoles, value(limit.bytes), value(limit.bytes+1), field, fmt.Sprintf("at most %d bytes", limit.bytes))
			if limit.items > 0 {
				values := atNumber[field]
				atLimit(t, ofRoles, with(value(100), fields{field: values(limit.items)}), with(value(100), fields{field: values(limit.items + 1)}),
					field, fmt.Sprintf("at most %d values", limit.items))
			}
			if limit.names > 0 {
				atLimit(t, ofRoles, with(value(100), fields{field: fields{long(limit.names): "v"}}), with(value(100), fields{field: fields{long(limit.names + 1): "v"}}),
					field, fmt.Sprintf("at most %d bytes", limit.names))
			}
		})
	}
}

// atLimit checks that a write at a limit is accepted, and that one beyond it is refused without a request: for a new
// config, a stored config and, if ofRoles is set, roles.
func atLimit(t *testing.T, ofRoles bool, at, beyond fields, says ...string) {
	t.Helper()
	as, m := newAuthServer(t), newIssuerMount(t)
	m.rejects("config/weather", with(as.client(), beyond), says...)
	m.configure(as, at)
	was := m.storage.entries(t)
	m.rejects("config/weather", beyond, says...)
	if ofRoles {
		m.rejects("role/weather/reader", beyond, says...)
	}
	m.storage.unchanged(t, was)
	as.asked(t, 0, "after writes beyond a limit")
	if ofRoles {
		m.write("role/weather/reader", with(at, fields{"verify": false}))
	}
}

// A field without its own limit has a fixed set of values, or a bounded form.
func TestFieldsWithoutALimitTakeNothingLong(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, fields{"client_secret": "", "key_type": "ec-p256"})
	was := m.storage.entries(t)
	for _, example := range slices.Sorted(maps.Keys(api)) {
		path := m.b.(*backend).Route(example)
		for field, schema := range path.Fields {
			_, limited := limits[field]
			if limited || slices.Contains([]string{"server", "role", "id"}, field) || schema.Type == framework.TypeBool {
				continue
			}
			for _, value := range []any{long(1 << 20), 1 << 62, []string{long(1 << 20)}} {
				text := m.rejects(example, fields{field: value}, field)
				if _, isText := value.(string); isText && schema.Type == framework.TypeString && len(text) > 1000 {
					t.Errorf("%s: the refusal of %s takes %d bytes", example, field, len(text))
				}
			}
		}
	}
	m.storage.unchanged(t, was)
	as.asked(t, 0, "after writes that are refused")
}

// The limits of the fields add up to more than Vault's storage accepts, so the whole config has a limit too.
func TestConfigAsAWholeHasItsLimit(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	certificate, _ := certificateAndKey(t)
	params := fields{}
	for _, name := range numbered(70) {
		params[name] = long(4 << 10)
	}
	padded := func(n int) fields {
		return fields{"extra_params": params, "ca_cert": long(n) + "\n" + certificate, "client_secret": secret}
	}
	m.configure(as, padded(0))
	room := maxEntry - len(must(json.Marshal(m.config("weather")))(t))
	m.configure(as, padded(room))
	was := m.storage.entries(t)
	if size := len(was["config/weather"]); size <= maxEntry || size > 512<<10 {
		t.Errorf("the largest config takes %d bytes of storage", size)
	}
	m.rejects("config/weather", padded(room+1), "the limit is 512000")
	m.storage.unchanged(t, was)

	// Characters with several bytes in storage can make a role too large.
	for name := range params {
		params[name] = strings.Repeat(`"`, 4<<10)
	}
	m.rejects("role/weather/reader", fields{"extra_params": params}, "the limit is 512000")
	m.storage.unchanged(t, was)
	as.asked(t, 0, "after writes that are too large")
}

// Keys stay published for a day, so the keys of several rotations add up.
func TestRotationThatDoesNotFitIsRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, fields{"client_secret": "", "key_type": "rsa-2048"})
	c := m.config("weather")
	c.CACert = long(maxEntry - len(must(json.Marshal(c))(t)) - 1000) // another key needs more than these 1000 bytes
	noError(t, m.store().putConfig(t.Context(), "weather", c))
	was, calls := m.storage.entries(t), m.storage.calls.Load()
	m.rejects("keys/weather/rotate", nil, "the limit is 512000")
	equal(t, "storage calls, of which one reads the config", m.storage.calls.Load()-calls, int64(1))
	m.storage.unchanged(t, was)
}

func TestLimitsCostATokenReadNothing(t *testing.T) {
	d := &framework.FieldData{
		Raw:    fields{"server": "weather", "role": "reader"},
		Schema: newMount(t).b.(*backend).Route("token/weather/reader").Fields,
	}
	allocations := testing.AllocsPerRun(1000, func() {
		if err := withinLimits(d); err != nil {
			t.Error(err)
		}
	})
	equal(t, "allocations", allocations, 0.0)
}

func TestDurationsHaveTheirLimits(t *testing.T) {
	const year = 365 * 24 * 3600
	for field, bounds := range map[string]struct{ least, most int }{
		"default_ttl": {1, year}, "max_ttl": {0, year}, "idle_timeout": {0, year}, "request_timeout": {1, 25},
	} {
		for _, at := range []int{bounds.least, bounds.most} {
			beyond := at + 1
			if at == bounds.least {
				beyond = at - 1
			}
			atLimit(t, false, fields{field: at}, fields{field: beyond}, field)
		}
	}
	for _, at := range []int{300, 30 * 24 * 3600} {
		as, m := newAuthServer(t), newMount(t)
		m.configure(as, fields{"client_secret": "", "key_type": "ec-p256"})
		was := m.storage.entries(t)
		for _, beyond := range []int{299, 30*24*3600 + 1} {
			m.rejects("keys/weather/rotate", fields{"activate_after": beyond}, "activate_after must be between")
		}
		m.storage.unchanged(t, was)
		m.write("keys/weather/rotate", fields{"activate_after": at})
	}
}

// The API page states the limits in force.
func TestAPIPageNamesTheLimits(t *testing.T) {
	_, section, found := strings.Cut(readText(t, "docs/api.md"), "## Limits of what a write may hold")
	section, _, _ = strings.Cut(section, "\n#")
	if !found {
		t.Fatal("the page has no such section")
	}
	named := map[string]string{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			continue
		}
		for field := range strings.SplitSeq(cells[1], ",") {
			named[strings.Trim(field, " `")] = cells[2]
		}
	}
	for field, limit := range limits {
		for _, n := range []int{limit.bytes, limit.items, limit.names} {
			if n > 0 && !slices.Contains(strings.Fields(strings.NewReplacer(",", "", ";", "").Replace(named[field])), fmt.Sprint(n)) {
				t.Errorf("the page says of %s %q; the limit is %d", field, named[field], n)
			}
		}
	}
}
