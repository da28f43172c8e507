package bed

import (
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The scan finds every form of a secret or a token in a log.
func TestScanFindsSecretsAndTokens(t *testing.T) {
	const (
		clientID = "weather client"
		secret   = `k+/%:"q&`
		opaque   = "an-opaque-access-token"
		jwt      = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ3ZWF0aGVyIn0.c2lnbmF0dXJl"
	)
	// This key is invented. Its second line is a full one.
	line := strings.Repeat("MIGH", 16)
	key := "-----BEGIN " + "PRIVATE KEY-----\n" + line + "\nAgEA\n-----END " + "PRIVATE KEY-----\n"
	basic := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(clientID) + ":" + url.QueryEscape(secret)))
	for _, c := range []struct {
		name, log string
		leaks     int
	}{
		{"nothing", `{"client_id":"weather client","client_secret":"hmac-sha256:12ab"}`, 0},
		{"secret", "sending " + secret, 1},
		{"secret in a form", "client_secret=" + url.QueryEscape(secret), 1},
		{"secret in JSON", `{"client_secret":"k+/%:\"q\u0026"}`, 1},
		{"secret in a header", "Authorization: Basic " + basic, 1},
		{"token", "Authorization: Bearer " + opaque, 1},
		{"token that is not registered", "access_token=" + jwt, 1},
		{"line of a private key", `private_key: "` + line + `"`, 1},
		{"key that is not registered", `-----BEGIN EC PRIVATE KEY-----\nMHcC`, 1},
		{"JWK that is not registered", `{\"kty\":\"EC\",\"d\":\"` + strings.Repeat("d", 43) + `\"}`, 1},
		{"public JWK", `{"kty":"EC","x":"` + strings.Repeat("x", 43) + `"}`, 0},
		{"several", secret + " " + opaque, 2},
		{"short one", `<hush>`, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			log := strings.Repeat("line\n", 3) + c.log + "\n"
			OK(t, os.WriteFile(filepath.Join(dir, "some.log"), []byte(log), 0o600))
			var s Secrecy
			s.AddClientSecret(clientID, secret)
			s.AddToken(opaque)
			s.AddToken("hush")
			s.AddPrivateKey("a key", key)
			report := Must(s.Scan(dir))(t)
			if len(report.Leaks) != c.leaks {
				t.Fatalf("found %q, want %d", report.Leaks, c.leaks)
			}
			for _, leak := range report.Leaks {
				if !strings.Contains(leak, "in some.log, line 4: ") {
					t.Errorf("the report %q does not give the place", leak)
				}
				if strings.Contains(leak, secret) || strings.Contains(leak, opaque) || strings.Contains(leak, jwt) {
					t.Errorf("the report %q contains the secret", leak)
				}
			}
			if redacted := string(s.Redact([]byte(log))); c.leaks > 0 && (strings.Contains(redacted, secret) || strings.Contains(redacted, opaque) || strings.Contains(redacted, jwt)) {
				t.Errorf("redacted text %q", redacted)
			}
		})
	}
}
