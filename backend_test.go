package mcpoauth

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// api has an example of every path, with its operations.
var api = map[string][]logical.Operation{
	"config":                 {logical.ListOperation},
	"config/":                {logical.ListOperation},
	"config/weather":         {logical.CreateOperation, logical.DeleteOperation, logical.ReadOperation, logical.UpdateOperation},
	"role":                   {logical.ListOperation},
	"role/":                  {logical.ListOperation},
	"role/weather":           {logical.ListOperation},
	"role/weather/":          {logical.ListOperation},
	"role/weather/reader":    {logical.CreateOperation, logical.DeleteOperation, logical.ReadOperation, logical.UpdateOperation},
	"token/weather":          {logical.ReadOperation},
	"token/weather/reader":   {logical.ReadOperation},
	"refresh/weather":        {logical.UpdateOperation},
	"refresh/weather/reader": {logical.UpdateOperation},
	"status":                 {logical.ListOperation},
	"status/":                {logical.ListOperation},
	"status/weather":         {logical.ListOperation, logical.ReadOperation},
	"status/weather/":        {logical.ListOperation, logical.ReadOperation},
	"status/weather/reader":  {logical.ReadOperation},
	"keys/weather":           {logical.ReadOperation},
	"keys/weather/rotate":    {logical.UpdateOperation},
	"jwks/weather":           {logical.ReadOperation},
	"issuer/weather/jwks":    {logical.ReadOperation},
	"issuer/weather/.well-known/openid-configuration": {logical.ReadOperation},
	"client/weather": {logical.ReadOperation},
	"metrics":        {logical.ReadOperation},
	"settings":       {logical.ReadOperation, logical.UpdateOperation},
}

func TestEveryPathHasTheOperationsOfTheAPI(t *testing.T) {
	b := newMount(t).b.(*backend)
	known := map[*framework.Path]bool{}
	for example, want := range api {
		path := b.Route(example)
		if path == nil {
			t.Errorf("%s leads nowhere", example)
			continue
		}
		known[path] = true
		got := slices.Sorted(maps.Keys(path.Operations))
		equal(t, example+": the operations", got, want)
		if path.ExistenceCheck == nil && slices.Contains(got, logical.CreateOperation) {
			t.Errorf("%s has a create but no existence check", example)
		}
	}
	equal(t, "the paths with an example", len(known), len(b.Paths))
	for _, wrong := range []string{
		"", "config/weather/", "config/weather/x", "xconfig/weather", "token", "token/", "token/weather/",
		"token/weather/reader/", "token/weather/reader/x", "token/-a", "token/a b", "token/a+b", "token/*",
		"keys", "keys/", "keys/weather/", "keys/weather/rotate/", "keys/weather/x", "jwks", "jwks/", "jwks/weather/", "jwks/weather/x",
		"metrics/", "metrics/x", "xmetrics",
	} {
		if path := b.Route(wrong); path != nil {
			t.Errorf("%q leads to %s", wrong, path.Pattern)
		}
	}
}

func TestEveryPathIsDescribed(t *testing.T) {
	described := func(where string, fields map[string]*framework.FieldSchema) {
		for name, field := range fields {
			if !strings.HasSuffix(field.Description, ".") {
				t.Errorf("%s: the description of %s is %q; want a sentence", where, name, field.Description)
			}
		}
	}
	for _, path := range newMount(t).b.(*backend).Paths {
		if !strings.HasSuffix(path.HelpSynopsis, ".") && !strings.HasSuffix(path.HelpSynopsis, "?") || path.HelpDescription == "" {
			t.Errorf("%s has the help %q, %q", path.Pattern, path.HelpSynopsis, path.HelpDescription)
		}
		if !strings.HasSuffix(path.Pattern, "$") {
			t.Errorf("%s has no end", path.Pattern)
		}
		if path.DisplayAttrs == nil || path.DisplayAttrs.OperationPrefix == "" {
			t.Errorf("%s has no name in the OpenAPI document", path.Pattern)
		}
		described(path.Pattern, path.Fields)
		for op, handler := range path.Operations {
			properties := handler.Properties()
			if !strings.HasSuffix(properties.Summary, ".") || !strings.HasSuffix(properties.Description, ".") || len(properties.Responses) == 0 {
				t.Errorf("%s %s has the summary %q, the description %q and %d responses",
					op, path.Pattern, properties.Summary, properties.Description, len(properties.Responses))
			}
			for status, responses := range properties.Responses {
				for _, response := range responses {
					described(path.Pattern, response.Fields)
					if response.Description == "" || status == http.StatusOK && op == logical.ReadOperation && len(response.Fields) == 0 && response.MediaType == "" {
						t.Errorf("%s %s: the response %d is not described", op, path.Pattern, status)
					}
				}
			}
		}
	}
}

func TestHelp(t *testing.T) {
	m := newMount(t)
	example := regexp.MustCompile(`\n  (.* \| )?(vault|curl) `)
	for _, path := range append(slices.Collect(maps.Keys(api)), "") {
		resp, err := m.b.HandleRequest(t.Context(), &logical.Request{Operation: logical.HelpOperation, Path: path, Storage: m.storage})
		if err != nil || resp == nil {
			t.Errorf("help for %q: %v, %v", path, resp, err)
			continue
		}
		text, _ := resp.Data["help"].(string)
		if len(text) < 100 || !example.MatchString(text) {
			t.Errorf("help for %q has no example, or is too short: %q", path, text)
		}
		document := string(must(json.Marshal(resp.Data["openapi"]))(t))
		contains(t, "the OpenAPI document of "+path, document, operationPrefix)
		if strings.Contains(document, "$ref") {
			t.Errorf("the OpenAPI document of %q has references, which Vault loses: %s", path, document)
		}
		_, _ = m.Write([]byte(text))
	}
}

func TestRestartCostsTheAuthorizationServerNothing(t *testing.T) {
	as, m := inUse(t)
	before := m.read("token/weather")
	delete(before, "ttl") // varies by jitter
	for range 3 {
		m.restart()
		shows(t, m.read("token/weather"), before)
		m.holds("weather/reader", "t0ken-2")
	}
	as.asked(t, 2, "after three restarts")
}

func TestStoredTokensAreRefreshedWithoutARead(t *testing.T) {
	as, m := newConfigured(t)
	m.stop()
	m.stash(weather, "t0ken-due", 40*time.Minute, time.Hour)
	m.start()
	as.await(1)
}

// A crash during a delete may leave a token without a config.
func TestStoredTokensWithoutAConfigAreDeleted(t *testing.T) {
	_, m := inUse(t)
	m.storage.fail("delete token/")
	m.delete("config/weather")
	m.stop()
	m.storage.fail()
	synctest.Test(t, func(t *testing.T) {
		newNode(t, m.storage, 0)
		synctest.Wait()
	})
	equal(t, "the keys", keysOf(t, m), nil)
}

// Vault's SDK holds a process-wide lock during cleanup, so a slow cleanup blocks other mounts.
func TestCleanupWithAHangingAuthorizationServer(t *testing.T) {
	as, m := newConfigured(t)
	as.hold()
	wait := inBackground(func() {
		m.refused(http.StatusServiceUnavailable, logical.ReadOperation, "token/weather", nil, "stopping")
	})
	as.await(1)
	m.stop() // TestCloseEndsAHangingFetchAtOnce shows how soon it ends
	wait()
	m.refused(http.StatusServiceUnavailable, logical.ReadOperation, "token/weather", nil, "stopping")
	m.refused(http.StatusServiceUnavailable, logical.UpdateOperation, "refresh/weather", nil, "stopping")
	nothingRuns(t)
	as.asked(t, 1, "after the cleanup")
}

func TestCleanupEndsAVerification(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.hold()
	wait := inBackground(func() {
		m.refused(http.StatusServiceUnavailable, logical.UpdateOperation, "config/weather", as.client(), "nothing was stored", "stopping")
	})
	as.await(1)
	m.stop()
	wait()
	equal(t, "the keys", keysOf(t, m), nil)
	nothingRuns(t)
}

func TestCleanupOfAMountInUse(t *testing.T) {
	_, m := inUse(t)
	m.storage.fail("put token/")
	m.write("config/weather", fields{"scopes": "a"}) // its token is saved later
	m.token("weather")
	m.stop()
	nothingRuns(t)
}

// nothingRuns checks that the engine has no goroutine. The last one may take a moment to end.
func nothingRuns(t *testing.T) {
	t.Helper()
	var left string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		stacks := make([]byte, 1<<20)
		left = string(stacks[:runtime.Stack(stacks, true)])
		if !strings.Contains(left, "internal/tokens.(") {
			return
		}
	}
	t.Errorf("still running after the cleanup:\n%s", left)
}

// Vault sends the key of a written entry to other nodes.
func TestInvalidation(t *testing.T) {
	for _, test := range []struct {
		key   string
		name  string
		write func(active *mount)
		want  string // the other node's token after the invalidation; empty: no token
	}{
		{"token/weather", "weather", func(active *mount) { active.stash(weather, "t0ken-new", 0, time.Hour) }, "t0ken-new"},
		{"token/weather/reader", "weather/reader", func(active *mount) { active.stash(reader, "t0ken-new", 0, time.Hour) }, "t0ken-new"},
		{"config/weather", "weather", func(active *mount) { active.write("config/weather", fields{"audience": "b", "verify": false}) }, ""},
		{"config/weather", "weather/reader", func(active *mount) { active.write("config/weather", fields{"audience": "b", "verify": false}) }, ""},
		{"config/weather", "weather", func(active *mount) { active.write("config/weather", fields{"max_ttl": "1h", "verify": false}) }, "t0ken-old"},
		{"role/weather/reader", "weather/reader", func(active *mount) { active.write("role/weather/reader", fields{"audience": "b", "verify": false}) }, ""},
		{"role/weather/reader", "weather", func(active *mount) { active.delete("role/weather/reader") }, "t0ken-old"},
		{"config/weather", "weather", func(active *mount) { active.delete("config/weather") }, ""},
		{"something/else", "weather", func(*mount) {}, "t0ken-old"},
	} {
		t.Run(test.key+" for "+test.name, func(t *testing.T) {
			storage := &testStorage{}
			as, active := newAuthServer(t), newNode(t, storage, 0)
			active.configure(as, nil)
			active.write("role/weather/reader", fields{"verify": false})
			active.stash(weather, "t0ken-old", time.Minute, time.Hour)
			active.stash(reader, "t0ken-old", time.Minute, time.Hour)
			standby := newNode(t, storage, consts.ReplicationPerformanceStandby)
			standby.holds(test.name, "t0ken-old")

			test.write(active)
			standby.b.InvalidateKey(t.Context(), test.key)
			if test.want == "" {
				standby.readOnly(logical.ReadOperation, "token/"+test.name, nil)
			} else {
				standby.holds(test.name, test.want)
			}
			as.asked(t, 0, "after the invalidation")
		})
	}
}

// The framework's own message would quote the value, and Vault would log it.
func TestSecretsOfTheWrongTypeAreNotEchoed(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for _, field := range []string{"client_secret", "private_key", "client_certificate_key"} {
		for _, value := range []any{
			fields{"value": secret}, []string{secret, secret}, []any{fields{secret: secret}}, 12345, 1.5, true,
		} {
			data := with(as.endpoint(), fields{field: value})
			m.rejects("config/weather", data, field+" must be a string")
			m.configure(as, nil)
			m.rejects("config/weather", data, field+" must be a string")
			m.delete("config/weather")

			req := &logical.Request{Operation: logical.UpdateOperation, Path: "config/weather", Data: data, Storage: m.storage}
			if checked, _, err := m.b.HandleExistenceCheck(t.Context(), req); err != nil || !checked {
				t.Errorf("existence check with %s %T: %t, %v", field, value, checked, err)
			}
		}
	}
	as.asked(t, 0, "after secrets of the wrong type")
}

// Clients with typed objects send null for unset fields.
func TestNullIsAFieldThatIsNotGiven(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"scopes": "read", "allow_insecure_http": true, "extra_params": "a=1", "idle_timeout": "1h"}))
	was := m.storage.entries(t)
	m.write("config/weather", fields{
		"client_secret": nil, "scopes": nil, "allow_insecure_http": nil, "extra_params": nil, "idle_timeout": nil, "verify": nil,
	})
	m.storage.unchanged(t, was)

	// A null or empty verify does not mean verify=false: the write is verified, and the server refuses it.
	as.answers(refusing(http.StatusUnauthorized, "invalid_client"))
	for _, verify := range []any{nil, ""} {
		m.rejects("config/weather", fields{"client_secret": "another-" + secret, "verify": verify}, "invalid_client")
	}
	m.storage.unchanged(t, was)
}
