package acceptance

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The policies of docs/security.md, and README's for brokers, permit exactly the requests that their text says. A
// permitted request gets the same answer as root's.
func TestPoliciesOfTheSecurityPage(t *testing.T) {
	t.Parallel()
	b := shared(t)
	u, other := newConfigured(t, b, "", 5*time.Minute), newConfigured(t, b, "-other", 5*time.Minute)
	u.write(t, "role/"+u.name+"/reader", map[string]any{"scopes": "tools:list"})

	policies := policiesOf(t, "../docs/security.md")
	policies["auditor"] = regexp.MustCompile(`capabilities = .*`).ReplaceAllString(policies["infrastructure as code"], `capabilities = ["read", "list"]`)
	policies["broker that refreshes"] = policyWritten(t, "../README.md", "mcp-broker")
	policies["all brokers"] = policyWritten(t, "../README.md", "mcp-brokers")
	policies["broker"], _, _ = strings.Cut(policies["broker that refreshes"], "\n\n") // without its second path
	for name, permitted := range map[string][]string{
		"broker":                {"read the token"},
		"broker that refreshes": {"read the token", "refresh the token by its id", "refresh the token by a null", "refresh the token by no text"},
		"all brokers":           {"read the own role's token", "refresh the own role's token by its id"},
		"operator": {
			"read the config", "write the config", "delete the config", "create the config",
			"list the roles", "read the role", "write the role", "delete a role",
			"read the keys", "rotate the keys", "read the status", "read the role's status",
			"list the configs", "list the roles' statuses",
			"refresh the token", "refresh the token by its id", "refresh the token by a null", "refresh the token by no text",
			"refresh the own role's token", "refresh the own role's token by its id", "refresh the role's token by its id",
		},
		"infrastructure as code": {
			"list the configs", "read the config", "read the other config", "write the config", "write the other config",
			"allow http", "allow http in the command's words", "allow inner addresses", "publish the keys", "write a key", "have a key made",
			"write the identity", "write the grant", "write the subject", "write the claims", "read the settings", "write the settings",
			"refresh the token", "refresh the token by its id", "refresh the token by a null", "refresh the token by no text",
			"refresh the own role's token", "refresh the own role's token by its id", "refresh the role's token by its id", "refresh the other token by its id",
			"delete the config", "create the config", "list the roles", "list the other roles", "read the role", "write the role", "delete a role",
			"read the keys", "rotate the keys", "list the status", "list the roles' statuses", "read the status", "read the role's status",
		},
		"monitoring": {"list the status", "list the roles' statuses", "read the status", "read the role's status"},
		"auditor": {
			"list the configs", "read the config", "read the other config", "list the roles", "list the other roles",
			"read the role", "read the keys", "list the status", "list the roles' statuses", "read the status", "read the role's status",
			"read the settings",
		},
	} {
		rules, ok := policies[name]
		if !ok {
			t.Errorf("the page has no policy %q", name)
			continue
		}
		delete(policies, name)
		id := newIdentity(t, b, u.name+"-"+notAName.ReplaceAllString(name, "-"), strings.ReplaceAll(rules, "files", u.name))
		u.write(t, "role/"+u.name+"/"+id.EntityID, map[string]any{"scopes": "tools:list"})
		may := map[string]bool{}
		for _, request := range permitted {
			may[request] = true
		}
		for request, ask := range requestsOf(t, u, other, id.EntityID) {
			want := ask(u.root)
			if want == http.StatusForbidden || want == 0 {
				t.Fatalf("%s: root gets %d", request, want)
			}
			if !may[request] {
				want = http.StatusForbidden
			}
			if got := ask(id.Client); got != want {
				t.Errorf("%s: %s: status %d, want %d", name, request, got, want)
			}
			delete(may, request)
		}
		for request := range may {
			t.Errorf("%s: there is no request to %s", name, request)
		}
	}
	for name := range policies {
		t.Errorf("the policy %q of the page is not tried", name)
	}
}

// policiesOf returns the policies of a page, by first line.
func policiesOf(t *testing.T, file string) map[string]string {
	t.Helper()
	page := bed.Must(os.ReadFile(file))(t)
	policies := map[string]string{}
	for _, block := range regexp.MustCompile("(?s)```hcl\n# ([^\n]*)\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		policies[block[1]] = block[2]
	}
	return policies
}

// policyWritten returns the policy that a page writes under this name.
func policyWritten(t *testing.T, file, name string) string {
	t.Helper()
	page := bed.Must(os.ReadFile(file))(t)
	_, after, found := strings.Cut(string(page), "vault policy write "+name+" - <<'EOF'\n")
	if !found {
		t.Fatalf("%s does not write the policy %s", file, name)
	}
	rules, _, _ := strings.Cut(after, "EOF\n")
	return rules
}

// requestsOf returns requests of every kind. Each returns the status of its answer.
func requestsOf(t *testing.T, u, other *upstream, entityID string) map[string]func(*api.Client) int {
	t.Helper()
	read := func(path string) func(*api.Client) int {
		return func(c *api.Client) int { return readStatus(t.Context(), c, path) }
	}
	list := func(path string) func(*api.Client) int {
		return func(c *api.Client) int { return listStatus(t.Context(), c, path) }
	}
	write := func(path string, data map[string]any) func(*api.Client) int {
		return func(c *api.Client) int {
			_, err := c.Logical().WriteWithContext(t.Context(), bed.Mount+"/"+path, data)
			return status(&api.Secret{}, err)
		}
	}
	remove := func(path string) func(*api.Client) int {
		return func(c *api.Client) int {
			_, err := c.Logical().DeleteWithContext(t.Context(), bed.Mount+"/"+path)
			return status(&api.Secret{}, err)
		}
	}
	// refused wraps a request that the plugin refuses whatever the policy.
	refused := func(ask func(*api.Client) int) func(*api.Client) int {
		return func(c *api.Client) int {
			got := ask(c)
			if got != http.StatusBadRequest && got != http.StatusForbidden {
				t.Errorf("a request that must be refused: status %d", got)
			}
			return got
		}
	}
	byID := map[string]any{"token_id": "0123456789abcdef"} // not the held token's id
	config, role, own := "config/"+u.name, u.name+"/reader", u.name+"/"+entityID
	// restore writes the deleted entries again.
	restore := func() {
		u.configure(t, nil)
		u.write(t, "role/"+role, map[string]any{"scopes": "tools:list"})
		u.write(t, "role/"+own, map[string]any{"scopes": "tools:list"})
	}
	return map[string]func(*api.Client) int{
		"read the token":                         read("token/" + u.name),
		"read the role's token":                  read("token/" + role),
		"read the own role's token":              read("token/" + own),
		"read the other token":                   read("token/" + other.name),
		"refresh the token":                      write("refresh/"+u.name, nil),
		"refresh the token by its id":            write("refresh/"+u.name, byID),
		"refresh the token by a null":            refused(write("refresh/"+u.name, map[string]any{"token_id": nil})),
		"refresh the token by no text":           refused(write("refresh/"+u.name, map[string]any{"token_id": ""})),
		"refresh the own role's token":           write("refresh/"+own, nil),
		"refresh the own role's token by its id": write("refresh/"+own, byID),
		"refresh the role's token by its id":     write("refresh/"+role, byID),
		"refresh the other token by its id":      write("refresh/"+other.name, byID),
		"list the configs":                       list("config/"),
		"read the config":                        read(config),
		"read the other config":                  read("config/" + other.name),
		"write the config":                       write(config, map[string]any{"scopes": "tools:list,tools:call"}),
		"write the other config":                 write("config/"+other.name, map[string]any{"scopes": "tools:list,tools:call"}),
		"allow http":                             write(config, map[string]any{"allow_insecure_http": true, "client_secret": u.client.Secret}),
		"allow http in the command's words":      write(config, map[string]any{"allow_insecure_http": "1", "client_secret": u.client.Secret}),
		"allow inner addresses":                  write(config, map[string]any{"allow_private_addresses": "true", "client_secret": u.client.Secret}),
		"publish the keys":                       write(config, map[string]any{"publish_jwks": true}),
		"write a key":                            write(config, map[string]any{"private_key": ""}), // an empty key
		"have a key made":                        write(config, map[string]any{"key_type": "ec-p256"}),
		"write the identity":                     write(config, map[string]any{"identity": "static"}),
		"write the grant":                        write(config, map[string]any{"grant": "client_credentials"}),
		"write the subject":                      write(config, map[string]any{"assertion_subject": ""}),
		"write the claims":                       write(config, map[string]any{"assertion_claims": map[string]any{}}),
		"read the settings":                      read("settings"),
		"write the settings":                     write("settings", nil), // changes nothing
		"delete the config": func(c *api.Client) int {
			defer restore()
			return remove(config)(c)
		},
		"create the config": func(c *api.Client) int {
			defer restore()
			if code := remove(config)(u.root); code != http.StatusOK {
				t.Fatalf("deleting the config answered %d", code)
			}
			return write(config, u.settings(nil))(c)
		},
		"list the roles":           list("role/" + u.name + "/"),
		"read the role":            read("role/" + role),
		"write the role":           write("role/"+role, map[string]any{"scopes": "tools:list"}),
		"delete a role":            remove("role/" + u.name + "/gone"),
		"list the other roles":     list("role/" + other.name + "/"),
		"read the keys":            read("keys/" + u.name),
		"rotate the keys":          write("keys/"+u.name+"/rotate", nil),
		"list the status":          list("status/"),
		"list the roles' statuses": list("status/" + u.name + "/"),
		"read the status":          read("status/" + u.name),
		"read the role's status":   read("status/" + role),
		"tune the mount": func(c *api.Client) int {
			_, err := c.Logical().WriteWithContext(t.Context(), "sys/mounts/"+bed.Mount+"/tune", map[string]any{"description": "tuned"})
			return status(&api.Secret{}, err)
		},
	}
}
