package servers

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

var authlib = Kind{
	Name:       "Authlib",
	Version:    "1.9.10",
	Section:    "Authlib",
	Start:      func(ctx context.Context, b *bed.Bed) (Server, error) { return startAuthlib(ctx, b) },
	Methods:    []string{"client_secret_basic", "client_secret_post", "private_key_jwt"},
	Secrets:    []string{Printable, "é€ß"},
	Algorithms: []string{"RS256", "ES256"},
	Refusals: []Refusal{
		{"wrong secret", nil, map[string]any{"client_secret": "not the secret"}, "invalid_client: The client cannot authenticate with methods"},
		{"unknown client", nil, map[string]any{"client_id": "unknown"}, "invalid_client: The client does not exist on this server"},
		{"grant not allowed", func(c *Client) { c.Off = true }, nil, "unauthorized_client: The client is not authorized to use 'grant_type=client_credentials'"},
	},
}

type authlibServer struct {
	*program
	url string
}

func startAuthlib(ctx context.Context, b *bed.Bed) (*authlibServer, error) {
	source, err := bed.SourcePath("acceptance", "servers", "authlib")
	if err != nil {
		return nil, err
	}
	pin, err := bed.ReadFiles(source, "requirements.txt")
	if err != nil {
		return nil, err
	}
	python, err := bed.PythonWith(ctx, "authlib", pin, b.Log, "--require-hashes", "--requirement", filepath.Join(source, "requirements.txt"))
	if err != nil {
		return nil, err
	}
	a := new(authlibServer)
	if a.program, err = newProgram(b, "authlib"); err != nil {
		return nil, err
	}
	ports, err := bed.FreePorts(1)
	if err != nil {
		return nil, err
	}
	a.url = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	a.ready = []string{a.url + "/jwks"}
	a.command = func() *exec.Cmd {
		cmd := exec.Command(python, "-B", filepath.Join(source, "server.py"), fmt.Sprint(ports[0]), a.file())
		_, _ = cmd.StdinPipe() // the program ends when its standard input closes
		return cmd
	}
	return a, a.launch(ctx)
}

// Issuer returns the server's only address.
func (a *authlibServer) Issuer(string) bed.Issuer {
	return bed.Issuer{URL: a.url, KeySet: a.url + "/jwks"}
}

// CA returns nil: Authlib has no tls_client_auth.
func (a *authlibServer) CA() *bed.CA { return nil }

// Recipe returns the page's placeholders.
func (a *authlibServer) Recipe() Recipe {
	return Recipe{Issuer: "https://AUTHLIB"}
}
