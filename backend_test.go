package mcpoauth

import (
	"bytes"
	"encoding/json"
	"errors"
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

// api is every path by an example, with the operations that it has.
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
		var got []logical.Operation
		for op := range path.Operations {
			got = append(got, op)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s has the operations %q; want %q", example, got, want)
		}
		if path.ExistenceCheck == nil && slices.Contains(got, logical.CreateOperation) {
			t.Errorf("%s has a create but no existence check", example)
		}
	}
	if len(known) != len(b.Paths) {
		t.Errorf("the examples lead to %d paths of %d", len(known), len(b.Paths))
	}
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
	for path := range with(fields{"": nil}, examples()) {
		resp, err := m.b.HandleRequest(t.Context(), &logical.Request{Operation: logical.HelpOperation, Path: path, Storage: m.storage})
		if err != nil || resp == nil {
			t.Errorf("help for %q: %v, %v", path, resp, err)
			continue
		}
		text, _ := resp.Data["help"].(string)
		if len(text) < 100 || !example.MatchString(text) {
			t.Errorf("help for %q has no example, or says too little: %q", path, text)
		}
		document, err := json.Marshal(resp.Data["openapi"])
		if err != nil || !bytes.Contains(document, []byte(operationPrefix)) {
			t.Errorf("the OpenAPI document of %q is %s, %v", path, document, err)
		}
		if bytes.Contains(document, []byte("$ref")) {
			t.Errorf("the OpenAPI document of %q has references, which Vault loses: %s", path, document)
		}
		_, _ = m.Write([]byte(text))
	}
}

func examples() fields {
	all := fields{}
	for path := range api {
		all[path] = nil
	}
	return all
}

func TestRestartCostsTheAuthorizationServerNothing(t *testing.T) {
	as, m := inUse(t)
	before := m.read("token/weather")
	for range 3 {
		m.stop()
		m.start()
		after := m.read("token/weather")
		for _, field := range []string{"access_token", "expires_at", "last_vault_rotation", "rotation_period", "token_id"} {
			if after[field] != before[field] {
				t.Errorf("after a restart %s is %v; want %v", field, after[field], before[field])
			}
		}
		m.holds("weather/reader", "t0ken-2")
	}
	as.asked(t, 2, "after three restarts")
}

// Tokens are looked after from the start, whether or not anybody reads them soon.
func TestStoredTokensAreRefreshedWithoutARead(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.stop()
	m.stash(weather, "t0ken-due", 40*time.Minute, time.Hour)
	m.start()
	as.await(1)
}

// A crash in the middle of a delete may leave a token without a config.
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

// Vault's SDK holds a process-wide lock during a cleanup: other mounts wait.
func TestCleanupWithAHangingAuthorizationServer(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	as.hold()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.refused(http.StatusServiceUnavailable, logical.ReadOperation, "token/weather", nil, "stopping")
	}()
	as.await(1)
	m.stop() // which ends though the server hangs; how soon, TestCloseEndsAHangingFetchAtOnce shows
	<-done
	m.refused(http.StatusServiceUnavailable, logical.ReadOperation, "token/weather", nil, "stopping")
	m.refused(http.StatusServiceUnavailable, logical.UpdateOperation, "refresh/weather", nil, "stopping")
	nothingRuns(t)
	as.asked(t, 1, "after the cleanup")
}

func TestCleanupEndsAVerification(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.hold()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.refused(http.StatusServiceUnavailable, logical.UpdateOperation, "config/weather", as.client(), "nothing was stored", "stopping")
	}()
	as.await(1)
	m.stop()
	<-done
	equal(t, "the keys", keysOf(t, m), nil)
	nothingRuns(t)
}

func TestCleanupOfAMountInUse(t *testing.T) {
	_, m := inUse(t)
	m.storage.fail("put token/")
	m.write("config/weather", fields{"scopes": "a"}) // its token is to be saved later
	m.token("weather")
	m.stop()
	nothingRuns(t)
}

// nothingRuns checks that no goroutine is left in the engine. A goroutine that has
// done its work may need a moment to be gone.
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
	t.Errorf("after the cleanup there still runs:\n%s", left)
}

// A node that did not do a write itself is told of it by its key.
func TestInvalidation(t *testing.T) {
	for _, test := range []struct {
		key   string
		name  string
		write func(active *mount)
		want  string // the token that the other node then serves; empty: none
	}{
		{"token/weather", "weather", func(active *mount) { active.stash(weather, "t0ken-new", 0, time.Hour) }, "t0ken-new"},
		{"token/weather/reader", "weather/reader", func(active *mount) { active.stash(reader, "t0ken-new", 0, time.Hour) }, "t0ken-new"},
		{"config/weather", "weather", func(active *mount) { active.write("config/weather", fields{"audience": "b", "verify": false}) }, ""},
		{"config/weather", "weather/reader", func(active *mount) { active.write("config/weather", fields{"audience": "b", "verify": false}) }, ""},
		{"config/weather", "weather", func(active *mount) { active.write("config/weather", fields{"max_ttl": "1h", "verify": false}) }, "t0ken-old"},
		{"role/weather/reader", "weather/reader", func(active *mount) { active.write("role/weather/reader", fields{"audience": "b", "verify": false}) }, ""},
		{"role/weather/reader", "weather", func(active *mount) { active.delete("role/weather/reader") }, "t0ken-old"},
	} {
		t.Run(test.key+" for "+test.name, func(t *testing.T) {
			storage := &testStorage{}
			as, active := newAuthServer(t), newNode(t, storage, 0)
			active.configure(as, nil)
			active.write("role/weather/reader", fields{"verify": false})
			active.stash(weather, "t0ken-old", time.Minute, time.Hour)
			active.stash(reader, "t0ken-old", time.Minute, time.Hour)
			standby := newNode(t, storage, consts.ReplicationPerformanceStandby)
			if got := standby.token(test.name); got != "t0ken-old" {
				t.Fatalf("the standby serves %q", got)
			}

			test.write(active)
			standby.b.InvalidateKey(t.Context(), test.key)
			if test.want == "" {
				standby.readOnly(logical.ReadOperation, "token/"+test.name, nil)
			} else if got := standby.token(test.name); got != test.want {
				t.Errorf("the standby serves %q; want %q", got, test.want)
			}
			as.asked(t, 0, "after the invalidation")
		})
	}
}

func TestInvalidationOfADeletedConfig(t *testing.T) {
	storage := &testStorage{}
	as, active := newAuthServer(t), newNode(t, storage, 0)
	active.configure(as, nil)
	active.stash(weather, "t0ken-old", time.Minute, time.Hour)
	standby := newNode(t, storage, consts.ReplicationPerformanceStandby)
	standby.token("weather")
	active.delete("config/weather")
	standby.b.InvalidateKey(t.Context(), "config/weather")
	standby.b.InvalidateKey(t.Context(), "something/else")
	standby.readOnly(logical.ReadOperation, "token/weather", nil) // the active node says that there is none
	active.refused(http.StatusNotFound, logical.ReadOperation, "token/weather", nil)
}

func TestRequestsThatLeadNowhere(t *testing.T) {
	m := newMount(t)
	if _, err := m.do(logical.ReadOperation, "nowhere", nil); !errors.Is(err, logical.ErrUnsupportedPath) {
		t.Errorf("an unknown path: %v", err)
	}
}

// The framework's own message would quote the value, and Vault would log it.
func TestSecretOfTheWrongTypeIsNotEchoed(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for _, value := range []any{
		fields{"value": secret}, []string{secret, secret}, []any{fields{secret: secret}}, 12345, 1.5, true,
	} {
		data := with(as.client(), fields{"client_secret": value})
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", data, "client_secret must be a string")
		m.configure(as, nil)
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", data, "client_secret must be a string")
		m.delete("config/weather")

		req := &logical.Request{Operation: logical.UpdateOperation, Path: "config/weather", Data: data, Storage: m.storage}
		if checked, _, err := m.b.HandleExistenceCheck(t.Context(), req); err != nil || !checked {
			t.Errorf("existence check with client_secret %T: %t, %v", value, checked, err)
		}
	}
	as.asked(t, 0, "after secrets of the wrong type")
}

// Clients that write whole objects write null for what they do not set.
func TestNullIsAFieldThatIsNotGiven(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"scopes": "read", "allow_insecure_http": true, "extra_params": "a=1", "idle_timeout": "1h"}))
	was := m.storage.entries(t)
	m.write("config/weather", fields{
		"client_secret": nil, "scopes": nil, "allow_insecure_http": nil, "extra_params": nil, "idle_timeout": nil, "verify": nil,
	})
	m.storage.unchanged(t, was)

	// Neither null nor an empty text is verify=false: these writes are refused by the server, and so not
	// stored.
	as.answers(refusing(http.StatusUnauthorized, "invalid_client"))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
		fields{"client_secret": "another-" + secret, "verify": nil}, "invalid_client")
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
		fields{"client_secret": "another-" + secret, "verify": ""}, "invalid_client")
	m.storage.unchanged(t, was)
}
