package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// openAPI has the fields of Vault's OpenAPI document that the tests check.
type openAPI struct {
	Paths map[string]*openAPIPath `json:"paths"`
}

type openAPIPath struct {
	Description string           `json:"description"`
	Parameters  []openAPINamed   `json:"parameters"`
	Get         *openAPIMethod   `json:"get"`
	Post        *openAPIMethod   `json:"post"`
	Delete      *openAPIMethod   `json:"delete"`
	Open        bool             `json:"x-vault-unauthenticated"`
	Methods     []*openAPIMethod `json:"-"`
}

type openAPINamed struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

type openAPIMethod struct {
	ID          string                  `json:"operationId"`
	Summary     string                  `json:"summary"`
	Description string                  `json:"description"`
	RequestBody *openAPIBody            `json:"requestBody"`
	Responses   map[string]*openAPIBody `json:"responses"`
}

type openAPIBody struct {
	Description string `json:"description"`
	Content     map[string]struct {
		Schema openAPISchema `json:"schema"`
	} `json:"content"`
}

type openAPISchema struct {
	Type         string                   `json:"type"`
	Format       string                   `json:"format"`
	Description  string                   `json:"description"`
	Enum         []any                    `json:"enum"`
	Items        *openAPISchema           `json:"items"`
	Properties   map[string]openAPISchema `json:"properties"`
	DisplayAttrs struct {
		Sensitive bool `json:"sensitive"`
	} `json:"x-vault-displayAttrs"`
}

// readOpenAPI returns the plugin's paths in Vault's document, relative to the mount.
func readOpenAPI(t *testing.T, root *api.Client) map[string]*openAPIPath {
	t.Helper()
	resp := bed.Must(root.Logical().ReadRawWithContext(t.Context(), "sys/internal/specs/openapi"))(t)
	defer resp.Body.Close()
	var document openAPI
	bed.OK(t, json.NewDecoder(resp.Body).Decode(&document))
	paths := map[string]*openAPIPath{}
	for path, item := range document.Paths {
		below, ours := strings.CutPrefix(path, "/"+bed.Mount+"/")
		if !ours {
			continue
		}
		for _, method := range []*openAPIMethod{item.Get, item.Post, item.Delete} {
			if method != nil {
				item.Methods = append(item.Methods, method)
			}
		}
		paths[below] = item
	}
	return paths
}

// Vault's OpenAPI document has every path of the plugin, with an id, a description, a request schema and response
// schemas for each operation.
func TestOpenAPIDescribesEveryOperation(t *testing.T) {
	t.Parallel()
	root := bed.Must(shared(t).Vault.Root())(t)
	paths := readOpenAPI(t, root)
	wellFormed := regexp.MustCompile(`^mcp-oauth-(list|read|write|delete|refresh|rotate)(-[a-z]+)+$`)
	sentence := func(where, text string) {
		if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "?") {
			t.Errorf("%s is described as %q, want a sentence", where, text)
		}
	}
	at := map[string]string{} // by operation id
	for path, item := range paths {
		sentence(path, item.Description)
		for _, parameter := range item.Parameters {
			sentence(path+" "+parameter.Name, parameter.Description)
		}
		if want := regexp.MustCompile(`^(jwks|issuer|client)/`).MatchString(path); item.Open != want {
			t.Errorf("%s: without a login: %t, want %t", path, item.Open, want)
		}
		for _, method := range item.Methods {
			if !wellFormed.MatchString(method.ID) {
				t.Errorf("%s has the operation id %q", path, method.ID)
			}
			if other, taken := at[method.ID]; taken {
				t.Errorf("%s and %s share the operation id %s", path, other, method.ID)
			}
			at[method.ID] = path
			sentence(method.ID+"'s summary", method.Summary)
			sentence(method.ID, method.Description)
			bodies := maps.Clone(method.Responses)
			if method == item.Post {
				bodies["request"] = method.RequestBody
			}
			checkBodies(t, method, bodies, sentence)
		}
	}
	want := []string{
		"mcp-oauth-delete-config", "mcp-oauth-delete-role", "mcp-oauth-list-configs",
		"mcp-oauth-list-role-statuses", "mcp-oauth-list-roles", "mcp-oauth-list-servers-with-roles", "mcp-oauth-list-statuses", "mcp-oauth-read-client", "mcp-oauth-read-config", "mcp-oauth-read-issuer",
		"mcp-oauth-read-issuer-jwks", "mcp-oauth-read-jwks", "mcp-oauth-read-keys",
		"mcp-oauth-read-metrics", "mcp-oauth-read-role", "mcp-oauth-read-role-status", "mcp-oauth-read-role-token",
		"mcp-oauth-read-settings", "mcp-oauth-read-status", "mcp-oauth-read-token", "mcp-oauth-refresh-role-token", "mcp-oauth-refresh-token",
		"mcp-oauth-rotate-keys", "mcp-oauth-write-config", "mcp-oauth-write-role", "mcp-oauth-write-settings",
	}
	if got := slices.Sorted(maps.Keys(at)); !slices.Equal(got, want) {
		t.Errorf("the operations are %q, want %q", got, want)
	}
}

// sensitive are the fields with a secret or a token.
var sensitive = []string{"client_secret", "private_key", "client_certificate_key", "access_token", "authorization"}

// checkBodies checks the schemas of an operation. A 200 has a schema, unless it holds only warnings.
func checkBodies(t *testing.T, method *openAPIMethod, bodies map[string]*openAPIBody, sentence func(where, text string)) {
	t.Helper()
	for name, body := range bodies {
		where := method.ID + " " + name
		if body == nil {
			t.Errorf("%s is missing", where)
			continue
		}
		if name != "request" && body.Description == "" {
			t.Errorf("%s is not described", where)
		}
		isWrite := strings.HasPrefix(method.ID, "mcp-oauth-write-")
		if len(body.Content) == 0 && name != "204" && !(name == "200" && isWrite) {
			t.Errorf("%s has no schema", where)
		}
		for kind, content := range body.Content {
			if content.Schema.Type != "object" && kind == "application/json" || content.Schema.Type == "" {
				t.Errorf("%s has the type %q", where, content.Schema.Type)
			}
			if len(content.Schema.Properties) == 0 && kind == "application/json" {
				t.Errorf("%s has no fields", where)
			}
			for field, schema := range content.Schema.Properties {
				sentence(where+" "+field, schema.Description)
				want := slices.Contains(sensitive, field) || field == "extra_headers" && name == "request" // a read returns only the headers' names
				if schema.DisplayAttrs.Sensitive != want {
					t.Errorf("%s %s: sensitive is %t, want %t", where, field, schema.DisplayAttrs.Sensitive, want)
				}
			}
		}
	}
}

// Every operation of the document, in several states, answers according to its schema.
func TestAnswersAreAsOpenAPISays(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	d := &documented{upstream: u, paths: readOpenAPI(t, u.root), done: map[string]bool{}}
	config, role := "config/"+u.name, u.name+"/reader"

	d.does(t, http.MethodPost, "config/{server}", config, u.settings(map[string]any{"extra_params": map[string]string{"tenant": "a"}}))
	d.does(t, http.MethodPost, "config/{server}", config, map[string]any{"scopes": "tools:list,nothing:such", "verify": false})
	d.does(t, http.MethodGet, "status/{server}", "status/"+u.name, nil) // no token with these scopes yet
	d.does(t, http.MethodPost, "config/{server}", config, map[string]any{"scopes": "tools:list,tools:call"})
	d.does(t, http.MethodGet, "config/{server}", config, nil)
	d.does(t, http.MethodPost, "role/{server}/{role}", "role/"+role, map[string]any{"scopes": "tools:list"})
	d.does(t, http.MethodGet, "role/{server}/{role}", "role/"+role, nil)
	d.does(t, "LIST", "config/", "config/", nil)
	d.does(t, "LIST", "role/", "role/", nil)
	d.does(t, "LIST", "role/{server}/", "role/"+u.name+"/", nil)
	for below, name := range map[string]string{"{server}": u.name, "{server}/{role}": role} {
		u.token(t, "token/"+name) // makes the bed look for this token in the logs
		d.does(t, http.MethodGet, "token/"+below, "token/"+name, nil)
		d.does(t, http.MethodPost, "refresh/"+below, "refresh/"+name, nil)
		d.does(t, http.MethodGet, "status/"+below, "status/"+name, nil)
	}
	u.write(t, "role/"+u.name+"/refused", map[string]any{"resource": "https://nowhere.example.com", "verify": false})
	wantStatus(t, u.root, "token/"+u.name+"/refused", http.StatusBadRequest)
	d.does(t, http.MethodGet, "status/{server}/{role}", "status/"+u.name+"/refused", nil) // its state is down
	d.does(t, "LIST", "status/", "status/", nil)
	d.does(t, "LIST", "status/{server}/", "status/"+u.name+"/", nil)
	d.does(t, http.MethodGet, "metrics", "metrics", nil)

	key := u.name + "-key"
	d.does(t, http.MethodPost, "config/{server}", "config/"+key, map[string]any{
		"token_url": u.bed.AS.TokenURL(), "client_id": key, "key_type": "ec-p256", "publish_jwks": true,
	})
	d.does(t, http.MethodGet, "config/{server}", "config/"+key, nil)
	d.does(t, http.MethodGet, "keys/{server}", "keys/"+key, nil)
	d.does(t, http.MethodPost, "keys/{server}/rotate", "keys/"+key+"/rotate", nil)
	d.does(t, http.MethodGet, "keys/{server}", "keys/"+key, nil)
	published, _ := u.read(t, "keys/"+key)["jwks_path"].(string)
	d.does(t, http.MethodGet, "jwks/{id}", published, nil)
	d.does(t, http.MethodPost, "settings", "settings", map[string]any{"public_url": strings.TrimSuffix(u.mountURL(), "/")})
	d.does(t, http.MethodGet, "settings", "settings", nil)
	trusted := map[string]string{}
	for identity, field := range map[string]string{"issuer": "issuer", "document": "document_url"} {
		name := u.name + "-" + identity
		d.does(t, http.MethodPost, "config/{server}", "config/"+name, map[string]any{
			"token_url": u.bed.AS.TokenURL(), "issuer": u.bed.AS.Issuer, "identity": identity, "key_type": "ec-p256",
		})
		d.does(t, http.MethodGet, "config/{server}", "config/"+name, nil)
		d.does(t, http.MethodGet, "keys/{server}", "keys/"+name, nil)
		url, _ := u.read(t, "keys/"+name)[field].(string)
		trusted[identity] = strings.TrimPrefix(url, u.mountURL())
	}
	d.does(t, http.MethodGet, "issuer/{id}/jwks", trusted["issuer"]+"/jwks", nil)
	d.does(t, http.MethodGet, "issuer/{id}/.well-known/openid-configuration", trusted["issuer"]+"/.well-known/openid-configuration", nil)
	d.does(t, http.MethodGet, "client/{id}", trusted["document"], nil)

	found := u.name + "-found"
	u.write(t, "config/"+found, u.discovered(map[string]any{"client_secret": u.client.Secret}))
	d.does(t, http.MethodGet, "config/{server}", "config/"+found, nil)

	d.does(t, http.MethodDelete, "role/{server}/{role}", "role/"+role, nil)
	for _, name := range []string{u.name, key, found} {
		d.does(t, http.MethodDelete, "config/{server}", "config/"+name, nil)
	}
	for _, item := range d.paths {
		for _, method := range item.Methods {
			if !d.done[method.ID] {
				t.Errorf("%s was not tried", method.ID)
			}
		}
	}
}

// documented makes the requests in a document.
type documented struct {
	*upstream
	paths map[string]*openAPIPath
	done  map[string]bool // by operation id
}

// does makes a request, and checks the answer against the schema: Vault's data, or the whole body.
func (d *documented) does(t *testing.T, verb, template, path string, data map[string]any) {
	t.Helper()
	item := d.paths[template]
	if item == nil {
		t.Errorf("the document does not have %s", template)
		return
	}
	method := map[string]*openAPIMethod{
		http.MethodGet: item.Get, "LIST": item.Get, http.MethodPost: item.Post, http.MethodDelete: item.Delete,
	}[verb]
	if method == nil {
		t.Errorf("the document does not have %s %s", verb, template)
		return
	}
	d.done[method.ID] = true
	if data != nil {
		schema := method.RequestBody.Content["application/json"].Schema
		for field := range data {
			if _, known := schema.Properties[field]; !known {
				t.Errorf("%s: the request's %s is not in the schema", method.ID, field)
			}
		}
	}

	encoded := bed.Must(json.Marshal(data))(t)
	request, err := http.NewRequestWithContext(t.Context(), verb, d.bed.Vault.Address+"/v1/"+bed.Mount+"/"+path, bytes.NewReader(encoded))
	bed.OK(t, err)
	request.Header.Set("X-Vault-Token", d.bed.Vault.RootToken)
	resp := bed.Must(bed.HTTPClient.Do(request))(t)
	defer resp.Body.Close()
	body := bed.Must(io.ReadAll(resp.Body))(t)
	expected, ok := method.Responses[fmt.Sprint(resp.StatusCode)]
	if !ok {
		t.Errorf("%s: status %d is not in the document", method.ID, resp.StatusCode)
		return
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	content, ok := expected.Content[kind]
	if !ok {
		if len(expected.Content) > 0 {
			t.Errorf("%s answers with %q, which is not in the document", method.ID, kind)
		}
		return
	}
	var answer any = string(body)
	if kind == "application/json" {
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Errorf("%s: %v", method.ID, err)
			return
		}
		if envelope, _ := answer.(map[string]any); envelope["request_id"] != nil {
			answer = envelope["data"]
		}
	}
	for _, problem := range content.Schema.problems("answer", answer) {
		t.Errorf("%s: %s", method.ID, problem)
	}
}

// problems returns the differences between a value and the schema, including unknown fields. It returns no values,
// because they may be tokens.
func (s openAPISchema) problems(where string, value any) []string {
	bad := func(format string, args ...any) []string { return []string{where + " " + fmt.Sprintf(format, args...)} }
	var problems []string
	is := fmt.Sprintf("is a %T, want %s", value, s.Type)
	switch s.Type {
	case "object":
		object, ok := value.(map[string]any)
		if !ok {
			return bad("%s", is)
		}
		for field, v := range object {
			property, known := s.Properties[field]
			switch {
			case known:
				problems = append(problems, property.problems(where+"."+field, v)...)
			case len(s.Properties) > 0:
				problems = append(problems, bad("has the field %s, which is not in the schema", field)...)
			}
		}
	case "array":
		list, ok := value.([]any)
		if !ok {
			return bad("%s", is)
		}
		for _, v := range list {
			problems = append(problems, s.Items.problems(where+"[]", v)...)
		}
	case "string":
		text, ok := value.(string)
		if !ok {
			return bad("%s", is)
		}
		if s.Format == "date-time" {
			if _, err := time.Parse(time.RFC3339, text); err != nil {
				return bad("is no time")
			}
		}
		if s.Enum != nil && !slices.Contains(s.Enum, value) {
			return bad("is none of %q", s.Enum)
		}
	case "integer":
		if n, ok := value.(float64); !ok || n != float64(int64(n)) {
			return bad("%s", is)
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			return bad("%s", is)
		}
	default:
		return bad("has a schema of the type %q", s.Type)
	}
	return problems
}

// vault path-help explains each path, with an example to copy.
func TestPathHelpTeaches(t *testing.T) {
	t.Parallel()
	b := shared(t)
	for path, says := range map[string][]string{
		"":                      {"access tokens of MCP servers", "vault write mcp-oauth/config/weather", "vault read mcp-oauth/token/weather", "read capability"},
		"/config":               {"names", "vault list mcp-oauth/config"},
		"/config/weather":       {"client_secret (string)", "discovered from server_url", "verify=false stores", "vault write mcp-oauth/config/weather"},
		"/role":                 {"List the MCP servers that have roles", "vault list mcp-oauth/role"},
		"/role/weather":         {"roles of one server", "vault list mcp-oauth/role/weather"},
		"/role/weather/reader":  {"other scopes, resource or audience", "vault write mcp-oauth/role/weather/reader", "identity.entity.id"},
		"/token/weather":        {"Read again after ttl seconds", "404:", "400:", "502:", "vault read mcp-oauth/token/weather"},
		"/token/weather/reader": {"role (string)", "vault read -field=authorization mcp-oauth/token/weather/reader"},
		"/refresh/weather":      {"token_id (string)", "vault write mcp-oauth/refresh/weather token_id=", "required_parameters"},
		"/refresh/weather/r":    {"token_id (string)", "vault write mcp-oauth/refresh/weather token_id="},
		"/status":               {"failing (", "vault list -detailed mcp-oauth/status", "worst role"},
		"/status/weather":       {"down (", "vault read mcp-oauth/status/weather"},
		"/status/weather/r":     {"idle (", "vault read mcp-oauth/status/weather"},
		"/keys/weather":         {"JWK Set", "vault read mcp-oauth/keys/weather"},
		"/keys/weather/rotate":  {"activate_after (duration (sec))", "vault write -force mcp-oauth/keys/weather/rotate"},
		"/jwks/weather":         {"jwks_uri", "curl $(vault read -field=jwks_uri mcp-oauth/keys/weather)"},
		"/settings":             {"public_url (string)", "vault write mcp-oauth/settings public_url="},
		"/metrics":              {"Prometheus", `capabilities = ["read"]`, "vault read -format=raw"},
	} {
		bed.WantText(t, "the help of "+path, commandSays(t, b, "path-help", bed.Mount+path), says...)
	}
}

// Vault lists the plugin's version, and the version of a mount.
func TestVaultReportsThePluginsVersion(t *testing.T) {
	t.Parallel()
	b := shared(t)
	r := &release{t: t, bed: b, plugins: b.PluginDir()}
	version := r.version(bed.PluginName)
	if !strings.HasPrefix(version, "v") {
		t.Fatalf("the plugin reports the version %q", version)
	}
	r.registered(version)
	r.runs(version, version)
}

func commandSays(t *testing.T, b *bed.Bed, args ...string) string {
	t.Helper()
	return output(t, b.Vault.CLI(t.Context(), b.Vault.RootToken, args...))
}

// rowsOf returns the rows of a table of the vault command, by first column.
func rowsOf(table string) map[string]map[string]string {
	gap := regexp.MustCompile(` {2,}`)
	lines := strings.Split(strings.TrimSpace(table), "\n")
	head := gap.Split(strings.TrimSpace(lines[0]), -1)
	rows := map[string]map[string]string{}
	for _, line := range lines[1:] {
		cells := gap.Split(strings.TrimSpace(line), -1)
		row := map[string]string{}
		for i, cell := range cells {
			if i < len(head) {
				row[head[i]] = cell
			}
		}
		rows[cells[0]] = row
	}
	return rows
}
