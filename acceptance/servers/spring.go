package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

var spring = Kind{
	Name:       "Spring",
	Version:    "7.0.6",
	Section:    "Spring Authorization Server",
	Start:      func(ctx context.Context, b *bed.Bed) (Server, error) { return startSpring(ctx, b) },
	ByResource: true,
	Methods:    []string{"client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"},
	// The server supports ES384 too, but the plugin does not make such keys.
	Algorithms: []string{"RS256", "PS256", "ES256"},
	Refusals: []Refusal{
		{"wrong secret", nil, map[string]any{"client_secret": "not the secret"}, "invalid_client (HTTP 401); client_secret_basic was used: check client_id and client_secret"},
		{"unknown client", nil, map[string]any{"client_id": "unknown"}, "invalid_client (HTTP 401)"},
		{"grant not allowed", func(c *Client) { c.Off = true }, nil, "unauthorized_client (HTTP 400)"},
		{"scope not assigned", nil, map[string]any{"scopes": "files:delete"}, "invalid_scope (HTTP 400); the scopes asked for were \"files:delete\""},
		{"unknown resource", nil, map[string]any{"resource": "https://other.example.com/mcp"}, "invalid_target (HTTP 400); the resource \"https://other.example.com/mcp\""},
		{"two resources", nil, map[string]any{"resource": "https://mcp.example.com/a,https://mcp.example.com/b"}, "invalid_target (HTTP 400)"},
		{"post not written", func(c *Client) { c.Method = "client_secret_post" }, map[string]any{"token_endpoint_auth_method": ""}, "token_endpoint_auth_method=client_secret_post"},
	},
}

type springServer struct {
	*program
	plain, tls string // URLs of its listeners
	ca         *bed.CA
}

func startSpring(ctx context.Context, b *bed.Bed) (*springServer, error) {
	jar, err := buildSpring(ctx, b.Log)
	if err != nil {
		return nil, err
	}
	s := new(springServer)
	if s.program, err = newProgram(b, "spring"); err != nil {
		return nil, err
	}
	ports, err := bed.FreePorts(2)
	if err != nil {
		return nil, err
	}
	s.plain, s.tls = fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("https://127.0.0.1:%d", ports[1])
	if s.ca, err = bed.NewCA(); err != nil {
		return nil, err
	}
	files, err := s.ca.ServerFiles(s.dir)
	if err != nil {
		return nil, err
	}
	s.ready = []string{s.plain + "/.well-known/oauth-authorization-server"}
	s.command = func() *exec.Cmd {
		return exec.Command("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-jar", jar,
			"--settings="+s.file(), "--server.address=127.0.0.1", fmt.Sprintf("--server.port=%d", ports[1]), fmt.Sprintf("--plain-port=%d", ports[0]),
			"--server.ssl.certificate=file:"+files["cert"], "--server.ssl.certificate-private-key=file:"+files["key"],
			"--server.ssl.trust-certificate=file:"+files["ca"], "--server.ssl.client-auth=want")
	}
	return s, s.launch(ctx)
}

// Issuer returns the address for the method. The signing keys are the same at both.
func (s *springServer) Issuer(method string) bed.Issuer {
	issuer := bed.Issuer{URL: s.plain, KeySet: s.plain + "/oauth2/jwks"}
	if method == "tls_client_auth" {
		issuer.URL = s.tls
	}
	return issuer
}

// CA returns the CA that issues its certificate and client certificates.
func (s *springServer) CA() *bed.CA { return s.ca }

// Recipe returns the page's placeholders.
func (s *springServer) Recipe() Recipe {
	return Recipe{Issuer: "https://SPRING"}
}

// buildSpring returns the server's jar, which Maven builds once from the directory spring.
func buildSpring(ctx context.Context, log func(string, ...any)) (string, error) {
	source, err := bed.SourcePath("acceptance", "servers", "spring")
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(source, "src", "main", "java", "servers", "*.java"))
	if err != nil {
		return "", err
	}
	pin, err := bed.ReadFiles("", append(files, filepath.Join(source, "pom.xml"))...)
	if err != nil {
		return "", err
	}
	return bed.Cached(ctx, "spring-authorization-server-", pin, log, func(jar string) error {
		log("building the Spring Authorization Server once")
		return bed.WithProgress("building Spring", log, func() error {
			target, err := os.MkdirTemp("", "spring-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(target)
			cmd := exec.CommandContext(ctx, "mvn", "--batch-mode", "--quiet", "-Dtarget="+target, "package")
			cmd.Dir = source
			if err := bed.Run(cmd); err != nil {
				return err
			}
			content, err := os.ReadFile(filepath.Join(target, "server.jar"))
			if err != nil {
				return err
			}
			return os.WriteFile(jar, content, 0o600)
		})
	})
}
