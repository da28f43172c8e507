package acceptance

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The audit log has hashes of secrets and tokens. Neither it nor other logs and errors have them in the clear. The
// bed scans them all at the end of the run; this test makes sure that the logs contain the hashes.
func TestLogsHoldNoSecret(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	config := bed.Mount + "/config/" + u.name
	for _, method := range []string{"client_secret_basic", "client_secret_post"} {
		u.client.AuthMethod = method
		u.setClient(t)
		u.configure(t, map[string]any{"token_endpoint_auth_method": method})
		if got := u.requests(t); got[len(got)-1].AuthMethod != method {
			t.Errorf("the secret was sent by %s, want %s", got[len(got)-1].AuthMethod, method)
		}
	}
	u.token(t, "token/"+u.name)

	// Config and status show neither the token nor the secret.
	for _, path := range []string{"config/" + u.name, "status/" + u.name} {
		answer := bed.Must(json.Marshal(u.read(t, path)))(t)
		for _, leak := range u.bed.Secrecy.ScanText(path, answer) {
			t.Errorf("an answer contains %s", leak)
		}
	}

	// Each of these errors can end a write.
	wrong := newSecret()
	u.bed.Secrecy.AddClientSecret(u.client.ID, wrong)
	for _, c := range []struct {
		name     string
		tokenURL string
		status   int
	}{
		{"refused", u.bed.AS.TokenURL(), http.StatusBadRequest},
		{"unreachable", "http://127.0.0.1:1/token", http.StatusBadGateway},
		{"nonsense", u.bed.AS.Issuer + "/nowhere", http.StatusBadGateway},
		{"malformed URL", "http://127.0.0.1:port/token", http.StatusBadRequest},
	} {
		secret, err := u.root.Logical().WriteWithContext(t.Context(), config, map[string]any{
			"client_secret": wrong,
			"token_url":     c.tokenURL,
		})
		if got := status(secret, err); got != c.status {
			t.Errorf("%s: status %d, want %d: %v", c.name, got, c.status, err)
		}
		if err != nil && strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: the error holds the secret", c.name)
		}
	}

	checkAuditLog(t, u.bed.Vault.AuditLog, "config/"+u.name, "request", "client_secret")
	checkAuditLog(t, u.bed.Vault.AuditLog, "token/"+u.name, "response", "access_token", "authorization")
	report := bed.Must(u.bed.Secrecy.Scan(u.bed.LogDir()))(t)
	for _, leak := range report.Leaks {
		t.Errorf("in the clear: %s", leak)
	}
}

// checkAuditLog checks that the audit log has hashes of these fields for the path.
func checkAuditLog(t *testing.T, file, path, part string, fields ...string) {
	t.Helper()
	log := bed.Must(os.Open(file))(t)
	defer log.Close()
	seen := map[string]int{}
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var entry struct {
			Request struct {
				Path string         `json:"path"`
				Data map[string]any `json:"data"`
			} `json:"request"`
			Response struct {
				Data map[string]any `json:"data"`
			} `json:"response"`
		}
		bed.OK(t, json.Unmarshal(line, &entry))
		if entry.Request.Path != bed.Mount+"/"+path {
			continue
		}
		data := entry.Request.Data
		if part == "response" {
			data = entry.Response.Data
		}
		for _, field := range fields {
			value, ok := data[field].(string)
			if !ok {
				continue
			}
			seen[field]++
			if !strings.HasPrefix(value, "hmac-sha256:") {
				t.Errorf("the audit log has %s of %s in the clear", field, path)
			}
		}
	}
	for _, field := range fields {
		if seen[field] == 0 {
			t.Errorf("the audit log has no %s of %s", field, path)
		}
	}
}
