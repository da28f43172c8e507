package main

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version"
)

const wholeConfig = `
listener "tcp" {
  address            = "0.0.0.0:8300"
  tls_cert_file      = "cert.pem"
  tls_key_file       = "key.pem"
  tls_client_ca_file = "clients.pem"
}
monitoring {
  address = ":8301"
}
vault {
  address   = "https://vault.example.com:8200"
  namespace = "team"
  ca_cert   = "vault.pem"
}
auto_auth {
  method "approle" {
    mount_path = "auth/brokers"
    config = {
      role_id_file_path   = "role-id"
      secret_id_file_path = "secret-id"
    }
  }
}
route "files" {
  upstream   = "https://files.example.com/mcp"
  token_path = "mcp-oauth/token/files"
  ca_cert    = "files.pem"
  kept_body  = 1048576
}
route "weather" {
  upstream            = "http://weather.mcp.svc/mcp"
  token_path          = "mcp-oauth/token/weather/reader"
  allow_insecure_http = true
}
`

func TestConfigIsReadAsWritten(t *testing.T) {
	got, err := parseConfig([]byte(wholeConfig))
	if err != nil {
		t.Fatal(err)
	}
	want := &config{
		Listeners: []listener{{
			Type: "tcp", Address: "0.0.0.0:8300", TLSCert: "cert.pem", TLSKey: "key.pem", TLSClientCAs: "clients.pem",
		}},
		Monitoring: monitoring{Address: ":8301"},
		Vault:      vaultConfig{Address: "https://vault.example.com:8200", Namespace: "team", CACert: "vault.pem"},
		AutoAuth: &autoAuth{Methods: []authMethod{{
			Type: "approle", MountPath: "auth/brokers", Config: authConfig{RoleIDFile: "role-id", SecretIDFile: "secret-id"},
		}}},
		Routes: []routeConfig{
			{Name: "files", Upstream: "https://files.example.com/mcp", TokenPath: "mcp-oauth/token/files", CACert: "files.pem", KeptBody: 1 << 20},
			{Name: "weather", Upstream: "http://weather.mcp.svc/mcp", TokenPath: "mcp-oauth/token/weather/reader", AllowInsecureHTTP: true},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v,\nwant %+v", got, want)
	}
}

const (
	tcp   = `listener "tcp" { address = "127.0.0.1:8300" }` + "\n"
	files = `route "files" {
  upstream   = "https://files.example.com/mcp"
  token_path = "mcp-oauth/token/files"
}
`
)

// A faulty configuration is refused as a whole. The error names the key to change.
func TestBadConfigIsRefused(t *testing.T) {
	route := func(name, upstream, more string) string {
		return tcp + "route \"" + name + "\" {\n  upstream = \"" + upstream + "\"\n  token_path = \"mcp-oauth/token/files\"\n" + more + "\n}\n"
	}
	auth := func(method string) string { return tcp + files + "auto_auth {\n" + method + "\n}\n" }
	for name, c := range map[string]struct{ config, want string }{
		"nothing":                {"", "listener"},
		"no HCL":                 {"{{", "not HCL"},
		"no listener":            {files, "listener"},
		"two listeners":          {tcp + `listener "unix" { address = "/run/s" }` + "\n" + files, "2 listener"},
		"another listener":       {`listener "udp" { address = "127.0.0.1:1" }` + "\n" + files, "udp"},
		"no address":             {`listener "tcp" {}` + "\n" + files, "address"},
		"no host name":           {"listener \"tcp\" {\n address = \"127.0.0.1:1\"\n hosts = [\"*.example.com\"]\n}\n" + files, "hosts"},
		"no port":                {`listener "tcp" { address = "127.0.0.1" }` + "\n" + files, "host:port"},
		"all addresses":          {`listener "tcp" { address = ":8300" }` + "\n" + files, "loopback"},
		"another address":        {`listener "tcp" { address = "192.0.2.1:8300" }` + "\n" + files, "loopback"},
		"a name":                 {`listener "tcp" { address = "proxy.example.com:8300" }` + "\n" + files, "loopback"},
		"half of TLS":            {"listener \"tcp\" {\n address = \":8300\"\n tls_cert_file = \"a\"\n}\n" + files, "tls_key_file"},
		"clients' TLS alone":     {"listener \"tcp\" {\n address = \":8300\"\n tls_client_ca_file = \"a\"\n}\n" + files, "tls_cert_file"},
		"TLS on a socket":        {"listener \"unix\" {\n address = \"/s\"\n tls_cert_file = \"a\"\n tls_key_file = \"b\"\n}\n" + files, "unix"},
		"monitoring":             {tcp + files + `monitoring { address = "8301" }`, "monitoring"},
		"no route":               {tcp, "route"},
		"two of one name":        {tcp + files + files, "twice"},
		"a route without a name": {tcp + "route {\n upstream = \"https://a/\"\n token_path = \"m/token/a\"\n}\n", "route"},
		"a name of two parts":    {route("a/b", "https://files.example.com/mcp", ""), "name"},
		"a name that goes up":    {route("..", "https://files.example.com/mcp", ""), "name"},
		"no upstream":            {route("files", "", ""), "upstream is missing"},
		"no URL":                 {route("files", "files.example.com", ""), "upstream"},
		"another scheme":         {route("files", "ftp://files.example.com", ""), "upstream"},
		"a password":             {route("files", "https://a:secret@files.example.com", ""), "user information"},
		"a fragment":             {route("files", "https://files.example.com/#a", ""), "fragment"},
		"http":                   {route("files", "http://files.example.com/mcp", ""), "allow_insecure_http"},
		"no token path":          {tcp + "route \"files\" {\n upstream = \"https://files.example.com\"\n}\n", "token_path"},
		"an unknown key":         {route("files", "https://files.example.com", "timeout = 3"), `line 5: "timeout" is not known here`},
		"an unknown block":       {tcp + files + "cache {}\n", "cache"},
		"an unknown key above":   {tcp + files + "upstream = \"x\"\n", "upstream"},
		"no number":              {route("files", "https://files.example.com", `kept_body = "x"`), `"x"`},
		"no method":              {auth(""), "method"},
		"two logins":             {auth("") + "auto_auth {}\n", "2 auto_auth"},
		"two Vaults":             {tcp + files + "vault { address = \"https://a\" }\nvault { address = \"https://b\" }\n", "2 vault"},
		"another method":         {auth(`method "ldap" {}`), "ldap"},
		"two methods":            {auth("method \"token_file\" {\n config = { token_file_path = \"a\" }\n}\nmethod \"kubernetes\" {\n config = { role = \"a\" }\n}"), "one method"},
		"half of a method":       {auth("method \"approle\" {\n config = { role_id_file_path = \"a\" }\n}"), "secret_id_file_path"},
		"an unknown parameter":   {auth("method \"token_file\" {\n config = {\n token_file_path = \"a\"\n path = \"b\"\n }\n}"), `"path"`},
	} {
		_, err := parseConfig([]byte(c.config))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
	for _, good := range []string{
		tcp + files,
		`listener "tcp" { address = "localhost:8300" }` + "\n" + files,
		`listener "tcp" { address = "[::1]:8300" }` + "\n" + files,
		`listener "unix" { address = "/run/mcp.sock" }` + "\n" + files,
		route("files", "http://127.0.0.1:8080/mcp", ""),
		auth("method \"kubernetes\" {\n config = { role = \"mcp-broker\" }\n}"),
	} {
		if _, err := parseConfig([]byte(good)); err != nil {
			t.Errorf("%v, of\n%s", err, good)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(wholeConfig))
	f.Add([]byte(tcp + files))
	f.Add([]byte(`{"listener": {"tcp": {"address": "127.0.0.1:1"}}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := parseConfig(content)
		if err != nil {
			return
		}
		// An accepted configuration is complete.
		if len(c.Listeners) != 1 || len(c.Routes) == 0 {
			t.Errorf("%+v", c)
		}
		for _, r := range c.Routes {
			if r.Upstream == "" || r.TokenPath == "" || strings.Contains(r.Name, "/") {
				t.Errorf("%+v", r)
			}
		}
	})
}

// runWith runs the proxy with arguments, and files in the working directory.
func runWith(t *testing.T, contents map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range contents {
		writeFile(t, name, content)
	}
	var stdout, stderr bytes.Buffer
	code = run(args, &stdout, &stderr, nil)
	return code, stdout.String(), stderr.String()
}

// -check checks as much as a start does, including files, and contacts no server.
func TestCheck(t *testing.T) {
	route := []string{"-check", "-upstream=https://files.example.com/mcp", "-token-path=mcp-oauth/token/files"}
	for name, c := range map[string]struct {
		files map[string]string
		args  []string
		code  int
		want  string
	}{
		"a file":                 {map[string]string{"a.hcl": tcp + files}, []string{"-check", "-config=a.hcl"}, 0, "valid, and has 1 route"},
		"flags":                  {nil, route, 0, "valid"},
		"a socket":               {nil, append(route, "-listen=unix:s"), 0, "valid"},
		"no file":                {nil, []string{"-check", "-config=a.hcl"}, 1, "a.hcl"},
		"a bad file":             {map[string]string{"a.hcl": "x = 1"}, []string{"-check", "-config=a.hcl"}, 1, "a.hcl: line 1"},
		"no CA file":             {nil, append(route, "-ca-cert=ca.pem"), 1, "ca.pem"},
		"no PEM":                 {map[string]string{"ca.pem": "x"}, append(route, "-ca-cert=ca.pem"), 1, "PEM"},
		"no certificate":         {map[string]string{"a.hcl": "listener \"tcp\" {\n address = \":1\"\n tls_cert_file = \"c\"\n tls_key_file = \"k\"\n}\n" + files}, []string{"-check", "-config=a.hcl"}, 1, "tls_cert_file"},
		"a strange token path":   {nil, []string{"-check", "-upstream=https://files.example.com", "-token-path=secret/files"}, 1, "token path"},
		"not of loopback":        {nil, append(route, "-listen=0.0.0.0:8300"), 1, "loopback"},
		"nothing":                {nil, nil, 2, "-config"},
		"check alone":            {nil, []string{"-check"}, 2, "-config"},
		"both":                   {nil, append(route, "-config=a.hcl"), 2, "exclude"},
		"a flag that is none":    {nil, []string{"-routes"}, 2, "routes"},
		"an argument":            {nil, append(route, "x"), 2, `"x"`},
		"version":                {nil, []string{"-version"}, 0, version.String()},
		"help":                   {nil, []string{"-help"}, 0, "Usage"},
		"a method without files": {map[string]string{"a.hcl": tcp + files + "auto_auth {\n method \"token_file\" {\n config = { token_file_path = \"none\" }\n }\n}\n"}, []string{"-check", "-config=a.hcl"}, 0, "valid"}, // an Agent may write the file later
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := runWith(t, c.files, c.args...)
			if code != c.code || !strings.Contains(out+errs, c.want) {
				t.Errorf("exit code %d, %q, %q; want %d and %q", code, out, errs, c.code, c.want)
			}
			if code == 0 && name != "help" && errs != "" {
				t.Errorf("the check fails: %q", errs)
			}
		})
	}
	if matches, _ := filepath.Glob("s"); len(matches) > 0 {
		t.Error("-check made the socket")
	}
}
