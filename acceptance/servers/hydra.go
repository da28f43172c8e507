package servers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

var hydra = Kind{
	Name:    "Hydra",
	Version: "2.3.0",
	Section: "Ory Hydra",
	Start:   func(ctx context.Context, b *bed.Bed) (Server, error) { return startHydra(ctx, b) },
	Methods: []string{"client_secret_basic", "client_secret_post", "private_key_jwt"},
	Secrets: []string{Printable, "é€ß"},
	// The server supports ES384 too, but the plugin does not make such keys.
	Algorithms: []string{"RS256", "PS256", "ES256"},
	Fields: func(c Client) map[string]any {
		fields := map[string]any{"audience": c.Audience}
		if c.Method == "private_key_jwt" {
			fields["assertion_audience"] = "token_endpoint"
		}
		return fields
	},
	Refusals: []Refusal{
		{"wrong secret", nil, map[string]any{"client_secret": "not the secret"}, "client_secret_basic was used: check client_id and client_secret"},
		{"unknown client", nil, map[string]any{"client_id": "unknown"}, "invalid_client: Client authentication failed"},
		{"grant not allowed", func(c *Client) { c.Off = true }, nil, "is not allowed to use authorization grant 'client_credentials'"},
		{"scope not assigned", nil, map[string]any{"scopes": "files:delete"}, "is not allowed to request scope 'files:delete'"},
		{"unknown audience", nil, map[string]any{"audience": "https://other.example.com/mcp"}, "Requested audience 'https://other.example.com/mcp' has not been whitelisted"},
	},
}

type hydraServer struct {
	daemon
	public, admin string // URLs of its listeners, through proxies

	writing sync.Mutex // held during a request that may write to the database
}

func startHydra(ctx context.Context, b *bed.Bed) (*hydraServer, error) {
	installed, err := installHydra(ctx, b.Log)
	if err != nil {
		return nil, err
	}
	h := &hydraServer{daemon: daemon{bed: b, name: "hydra"}}
	if h.dir, err = os.MkdirTemp(b.Dir, "hydra-"); err != nil {
		return nil, err
	}
	ports, err := bed.FreePorts(2)
	if err != nil {
		return nil, err
	}
	if h.public, err = h.proxy(ctx, ports[0]); err != nil {
		return nil, err
	}
	if h.admin, err = h.proxy(ctx, ports[1]); err != nil {
		return nil, err
	}
	database, err := os.ReadFile(filepath.Join(installed, hydraDatabase))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(h.dir, hydraDatabase), database, 0o600); err != nil {
		return nil, err
	}
	listener := func(port int) map[string]any { return map[string]any{"host": "127.0.0.1", "port": port} }
	configuration, err := json.Marshal(map[string]any{
		"dsn":        hydraDSN(h.dir),
		"serve":      map[string]any{"public": listener(ports[0]), "admin": listener(ports[1])},
		"urls":       map[string]any{"self": map[string]any{"issuer": h.public}},
		"strategies": map[string]any{"access_token": "jwt"},
		"ttl":        map[string]any{"access_token": fmt.Sprintf("%ds", Lifetime)},
		"secrets":    map[string]any{"system": []string{rand.Text()}},
		"log":        map[string]any{"level": "info"},
		"sqa":        map[string]any{"opt_out": true},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(h.configuration(), configuration, 0o600); err != nil {
		return nil, err
	}
	h.command = func() *exec.Cmd {
		return exec.Command(filepath.Join(installed, "hydra"), "serve", "all", "--dev", "--config="+h.configuration())
	}
	// Hydra makes its signing keys at the first request for them. This may exceed the client's time limit.
	h.ready = []string{h.Issuer("").KeySet, h.admin + "/health/ready"}
	return h, h.launch(ctx)
}

// proxy listens until the context ends, and returns its URL. It passes on one writing request at a time: with SQLite,
// one of two concurrent writes gets a 500 from Hydra.
func (h *hydraServer) proxy(ctx context.Context, port int) (string, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	// The default handler would log each request during a restart.
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				h.writing.Lock()
				defer h.writing.Unlock()
			}
			proxy.ServeHTTP(w, r)
		}),
	}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return "http://" + listener.Addr().String(), nil
}

func (h *hydraServer) configuration() string { return filepath.Join(h.dir, "hydra.json") }

// Issuer returns the public listener.
func (h *hydraServer) Issuer(string) bed.Issuer {
	return bed.Issuer{URL: h.public, KeySet: h.public + "/.well-known/jwks.json"}
}

// CA returns nil: Hydra has no tls_client_auth.
func (h *hydraServer) CA() *bed.CA { return nil }

// SetClient creates a client or replaces it.
func (h *hydraServer) SetClient(ctx context.Context, c Client) error {
	client := map[string]any{
		"client_id": c.ID, "token_endpoint_auth_method": c.Method, "grant_types": []string{"client_credentials"},
		"scope": strings.Join(c.Scopes, " "), "audience": []string{c.Audience},
	}
	if c.Off {
		client["grant_types"] = []string{"refresh_token"}
	}
	if c.Method == "private_key_jwt" {
		client["jwks_uri"], client["token_endpoint_auth_signing_alg"] = c.JWKSURI, c.Algorithm
	} else {
		client["client_secret"] = c.Secret
		h.bed.Secrecy.AddClientSecret(c.ID, c.Secret)
	}
	path := "/admin/clients/" + url.PathEscape(c.ID)
	if bed.Call(ctx, http.MethodGet, h.admin+path, nil, nil, nil) == nil {
		return h.administer(ctx, http.MethodPut, path, client)
	}
	return h.administer(ctx, http.MethodPost, "/admin/clients", client)
}

// NewSigningKey adds a key for access tokens. Hydra signs with the newest.
func (h *hydraServer) NewSigningKey(ctx context.Context) error {
	return h.administer(ctx, http.MethodPost, "/admin/keys/hydra.jwt.access-token", map[string]any{"alg": "RS256", "use": "sig", "kid": rand.Text()})
}

func (h *hydraServer) administer(ctx context.Context, method, path string, body any) error {
	return bed.Call(ctx, method, h.admin+path, nil, body, nil)
}

// Recipe returns the page's placeholders.
func (h *hydraServer) Recipe() Recipe {
	return Recipe{Own: map[string]string{"https://HYDRA": h.public, "http://HYDRA-ADMIN": h.admin}}
}

const hydraDatabase = "hydra.sqlite"

func hydraDSN(dir string) string {
	return "sqlite://" + filepath.Join(dir, hydraDatabase) + "?_fk=true"
}

// installHydra returns a directory in the user's cache directory. It has the Hydra that tools/hydra pins, and its
// empty database, because setting up the database is slow.
func installHydra(ctx context.Context, log func(string, ...any)) (string, error) {
	source, err := bed.SourcePath("tools", "hydra")
	if err != nil {
		return "", err
	}
	pin, err := bed.ReadFiles(source, "go.mod", "go.sum")
	if err != nil {
		return "", err
	}
	return bed.Cached(ctx, "hydra-", pin, log, func(dir string) error {
		log("building Ory Hydra once: two to six minutes on two cores")
		return bed.WithProgress("building Hydra", log, func() error {
			binary := filepath.Join(dir, "hydra")
			build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags=sqlite,sqlite_omit_load_extension", "-o", binary, "github.com/ory/hydra/v2")
			build.Dir = source
			migrate := exec.CommandContext(ctx, binary, "migrate", "sql", "--read-from-env", "--yes")
			migrate.Env = append(os.Environ(), "DSN="+hydraDSN(dir))
			if err := bed.Run(build); err != nil {
				return err
			}
			return bed.Run(migrate)
		})
	})
}
