//go:build servers

package acceptance

import (
	"strings"
	"testing"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The recipe in docs/providers.md is pasted: the server's commands, and then each config, which gets a token for the
// MCP server.
func checkRecipe(t *testing.T, s *served) {
	t.Parallel()
	if s.Section == "" {
		return
	}
	s.whileUp(t)
	c := s.newClient(t, s.Methods[0], nil)
	w := c.walk(t, "docs/providers.md")
	w.blocks = nil
	for _, b := range blocksOf(t, "docs/providers.md") {
		mount := strings.HasPrefix(b.text, "vault write "+bed.Mount+"/settings ") // needed by all recipes
		if (b.heading == s.Section || mount) && b.language == "sh" {
			w.blocks = append(w.blocks, b)
		}
	}
	if len(w.blocks) < 2 {
		t.Fatalf("docs/providers.md has no recipe under %q", s.Section)
	}
	recipe := s.Recipe()
	for name, script := range recipe.Commands {
		w.shim(name, script)
	}
	w.own = []readersOwn{
		{is: c.mcp.URL, name: "https://mcp.example.com/mcp"},
		{is: "config/" + c.name, name: "config/files"},
		{is: "keys/" + c.name, name: "keys/files"},
		{is: s.bed.Vault.Address, name: "https://VAULT"},
	}
	for name, is := range recipe.Own {
		w.own = append(w.own, readersOwn{name: name, is: is})
	}
	if recipe.Issuer != "" {
		w.own = append(w.own, readersOwn{name: recipe.Issuer, is: s.Issuer("").URL})
	}
	if ca := s.CA(); ca != nil {
		c.as.Subject = w.certify(ca)
	}
	for len(w.blocks) > 0 {
		b := w.next("sh", "")
		config := strings.Contains(b.text, "vault write "+bed.Mount+"/config/")
		if config {
			bed.Must(c.root.Logical().DeleteWithContext(t.Context(), bed.Mount+"/config/"+c.name))(t)
			method := methodIn(b.text)
			b.text = strings.ReplaceAll(b.text, s.Issuer("").URL, s.Issuer(method).URL)
			w.mcp.Trust(s.Issuer(method))
			if recipe.Issuer != "" {
				c.createFor(t, w, method)
			}
		}
		if out, err := w.run(b, b.text); err != nil {
			t.Fatal(err)
		} else if config {
			t.Logf("%s\n%s", b, s.bed.Secrecy.Redact([]byte(out)))
			if recipe.Issuer != "" {
				c.registerKeys(t)
			}
			w.awaitToken(t)
			w.token(t, "token/"+c.name)
		}
	}
}

// methodIn returns the client authentication method of a config's command.
func methodIn(command string) string {
	switch {
	case strings.Contains(command, "client_certificate="):
		return "tls_client_auth"
	case strings.Contains(command, "key_type="):
		return "private_key_jwt"
	default:
		return "client_secret_basic"
	}
}

// createFor creates the client for a page without commands for it, and the file with its secret.
func (c *clientOf) createFor(t *testing.T, w *walkthrough, method string) {
	t.Helper()
	c.as.ID, c.as.Method, c.as.Algorithm = "mcp-broker", method, "ES256"
	if method != "private_key_jwt" { // otherwise the URL of the keys is known later
		c.register(t)
	}
	w.put("client-secret", c.as.Secret+"\n")
}

// certify issues a client certificate for the reader, and returns its subject. The same CA has issued the server's
// certificate.
func (w *walkthrough) certify(ca *bed.CA) string {
	w.t.Helper()
	issued := bed.Must(ca.Client("recipe"))(w.t)
	w.bed.Secrecy.AddPrivateKey("the recipe's key", issued.KeyPEM)
	w.put("cert.pem", issued.PEM+ca.PEM)
	w.put("key.pem", issued.KeyPEM)
	w.put("ca.pem", ca.PEM)
	w.own = append(w.own,
		readersOwn{name: "CN=mcp-broker,O=Example", is: issued.Subject}, readersOwn{name: "CN=Example CA", is: ca.Subject},
		readersOwn{name: "client_certificate=@cert.pem", is: "client_certificate=@cert.pem ca_cert=@ca.pem"})
	return issued.Subject
}
