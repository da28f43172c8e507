package bed

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// An AuthorizationServer is an oidc-provider process, see as/server.mjs. Tests set its clients and resources at run
// time.
type AuthorizationServer struct {
	Issuer string
	CA     *CA // of the HTTPS listener, and of accepted client certificates

	source    string // directory of server.mjs
	knownFile string // see writeKnown
	log       string
	options   map[string]any // for server.mjs
	secrecy   *Secrecy

	mu      sync.RWMutex // guards the fields below; locked for writing during a restart
	mtls    string       // base URL of the HTTPS listener
	control string       // base URL of the control endpoint
	proc    *Process
	earlier []TokenRequest // requests before the last restart

	registryMu sync.Mutex // guards clients and resources, which a restarted server needs
	clients    map[string]Client
	resources  map[string]Resource
}

// A Client is a client registered with the authorization server (RFC 7591 metadata).
type Client struct {
	ID         string `json:"client_id"`
	Secret     string `json:"client_secret,omitempty"`
	AuthMethod string `json:"token_endpoint_auth_method,omitempty"` // default client_secret_basic
	Scope      string `json:"scope,omitempty"`                      // scopes that the client may request

	// For private_key_jwt: the client's public keys, or their URL.
	JWKS    *jose.JSONWebKeySet `json:"jwks,omitempty"`
	JWKSURI string              `json:"jwks_uri,omitempty"`

	// For tls_client_auth: the certificate's subject or DNS name (RFC 8705 section 2.1.2).
	SubjectDN string `json:"tls_client_auth_subject_dn,omitempty"`
	SANDNS    string `json:"tls_client_auth_san_dns,omitempty"`
}

// A Resource is a protected resource for which clients can request tokens (RFC 8707).
type Resource struct {
	URL   string        `json:"resource"`
	Scope string        `json:"scope"` // known scopes; a token has no others
	TTL   time.Duration `json:"-"`     // lifetime of its tokens
	Delay time.Duration `json:"-"`     // added to the answer of each token request
}

// A TokenRequest is a request to the token endpoint, with its answer.
type TokenRequest struct {
	Time         time.Time `json:"time"`
	ClientID     string    `json:"client_id"`
	AuthMethod   string    `json:"auth_method"`
	Assertion    Assertion `json:"assertion"` // of private_key_jwt
	Status       int       `json:"status"`
	Error        string    `json:"error"`
	Resource     string    `json:"resource"`
	Scope        string    `json:"scope"`
	GrantedScope string    `json:"granted_scope"`
	JTI          string    `json:"jti"` // of the issued token
}

// An Assertion holds the claims of a client assertion except the client's name (RFC 7523 section 3).
type Assertion struct {
	Alg      string `json:"alg"`
	KeyID    string `json:"kid"`
	Type     string `json:"typ"`
	X5T      string `json:"x5t"` // x5t#S256
	Audience any    `json:"aud"` // of any JSON type; a string if well-formed
	ID       string `json:"jti"`
	Lifetime int    `json:"lifetime"` // seconds from iat to exp
}

// A KeyFetch is one request of the authorization server for a client's jwks_uri.
type KeyFetch struct {
	Time   time.Time `json:"time"`
	URL    string    `json:"url"`
	Status int       `json:"status"`
}

// scopes are the server's own. It refuses them with invalid_scope unless they are registered for the client.
var scopes = []string{"tools:list", "tools:call", "admin"}

func startAuthorizationServer(ctx context.Context, source, dir, log string, secrecy *Secrecy) (*AuthorizationServer, error) {
	ca, err := NewCA()
	if err != nil {
		return nil, err
	}
	tls, err := ca.ServerFiles(dir)
	if err != nil {
		return nil, err
	}
	known := filepath.Join(dir, "as-known.json")
	as := &AuthorizationServer{
		CA:        ca,
		source:    source,
		log:       log,
		knownFile: known,
		options: map[string]any{
			"key_file": filepath.Join(dir, "as-key.json"), "known_file": known, "scopes": scopes, "tls": tls,
		},
		secrecy:   secrecy,
		clients:   make(map[string]Client),
		resources: make(map[string]Resource),
	}
	return as, as.start(ctx)
}

// start starts the process and waits until it listens. mu is held, or the server is not shared yet.
func (as *AuthorizationServer) start(ctx context.Context) error {
	if err := as.writeKnown(as.knownFile); err != nil {
		return err
	}
	options, err := json.Marshal(as.options)
	if err != nil {
		return err
	}
	cmd := exec.Command("node", "server.mjs", string(options))
	cmd.Dir = as.source
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var ready struct{ Issuer, MTLS, Control string }
	proc, err := startReady(ctx, "authorization server", cmd, as.log, &ready)
	if err != nil {
		return err // as.proc remains the ended process, for close
	}
	as.proc, as.Issuer, as.mtls, as.control = proc, ready.Issuer, ready.MTLS, ready.Control
	return nil
}

// writeKnown writes the clients and resources to the file that the server reads when it starts, so that a restarted
// server never refuses a known client.
func (as *AuthorizationServer) writeKnown(file string) error {
	as.registryMu.Lock()
	defer as.registryMu.Unlock()
	var resources []map[string]any
	for _, r := range as.resources {
		resources = append(resources, r.body())
	}
	known, err := json.Marshal(map[string]any{"clients": slices.Collect(maps.Values(as.clients)), "resources": resources})
	if err != nil {
		return err
	}
	return os.WriteFile(file, known, 0o600)
}

// Restart ends the server, and starts it again after pause with the same issuer, key, clients and resources. Token
// requests that arrive while it ends are not counted.
func (as *AuthorizationServer) Restart(ctx context.Context, pause time.Duration) error {
	as.mu.Lock()
	defer as.mu.Unlock()
	var seen []TokenRequest
	if err := as.exchange(ctx, http.MethodGet, "/requests", nil, &seen); err != nil {
		return err
	}
	as.earlier = append(as.earlier, seen...)
	if err := as.proc.Stop(); err != nil {
		return err
	}
	if err := Sleep(ctx, pause); err != nil {
		return err
	}
	issuer, err := url.Parse(as.Issuer)
	if err != nil {
		return err
	}
	if as.options["port"], err = strconv.Atoi(issuer.Port()); err != nil {
		return err
	}
	// For a moment, an outgoing connection of this machine may hold the port.
	return Poll(ctx, 30*time.Second, func() error { return as.start(ctx) })
}

// TokenURL is the address of the token endpoint.
func (as *AuthorizationServer) TokenURL() string { return as.Issuer + "/token" }

// MTLSTokenURL returns the token endpoint of the HTTPS listener, which requests a client certificate. The metadata
// names it in mtls_endpoint_aliases (RFC 8705 section 5).
func (as *AuthorizationServer) MTLSTokenURL() string {
	as.mu.RLock()
	defer as.mu.RUnlock()
	return as.mtls + "/token"
}

func (as *AuthorizationServer) issuer() Issuer {
	return Issuer{URL: as.Issuer, KeySet: as.Issuer + "/jwks"}
}

// NewClientCertificate issues a client certificate, and adds its key to the secrets.
func (as *AuthorizationServer) NewClientCertificate(name string) (*Certificate, error) {
	c, err := as.CA.Client(name)
	if err == nil {
		as.secrecy.AddPrivateKey("key of the client certificate of "+name, c.KeyPEM)
	}
	return c, err
}

// SetClient registers a client, or changes one, such as its secret.
func (as *AuthorizationServer) SetClient(ctx context.Context, c Client) error {
	as.secrecy.AddClientSecret(c.ID, c.Secret)
	as.registryMu.Lock()
	as.clients[c.ID] = c
	as.registryMu.Unlock()
	return as.call(ctx, http.MethodPut, "/clients", c, nil)
}

// RemoveClient removes a client.
func (as *AuthorizationServer) RemoveClient(ctx context.Context, id string) error {
	as.registryMu.Lock()
	delete(as.clients, id)
	as.registryMu.Unlock()
	return as.call(ctx, http.MethodDelete, "/clients?id="+url.QueryEscape(id), nil, nil)
}

// SetResource registers a resource, or changes one.
func (as *AuthorizationServer) SetResource(ctx context.Context, r Resource) error {
	as.registryMu.Lock()
	as.resources[r.URL] = r
	as.registryMu.Unlock()
	return as.call(ctx, http.MethodPut, "/resources", r.body(), nil)
}

// body returns the resource for the control endpoint.
func (r Resource) body() map[string]any {
	return map[string]any{
		"resource": r.URL, "scope": r.Scope, "ttl": int(r.TTL.Seconds()), "delay_ms": r.Delay.Milliseconds(),
	}
}

// Requests returns the token requests of a client since the first start, oldest first.
func (as *AuthorizationServer) Requests(ctx context.Context, clientID string) ([]TokenRequest, error) {
	var now, own []TokenRequest
	as.mu.RLock()
	defer as.mu.RUnlock()
	if err := as.exchange(ctx, http.MethodGet, "/requests", nil, &now); err != nil {
		return nil, err
	}
	for _, r := range slices.Concat(as.earlier, now) {
		if r.ClientID == clientID {
			own = append(own, r)
		}
	}
	return own, nil
}

// KeyFetches returns the server's requests for a jwks_uri since its last start, oldest first.
func (as *AuthorizationServer) KeyFetches(ctx context.Context, jwksURI string) ([]KeyFetch, error) {
	var all, own []KeyFetch
	if err := as.call(ctx, http.MethodGet, "/keyfetches", nil, &all); err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.URL == jwksURI {
			own = append(own, f)
		}
	}
	return own, nil
}

// call calls the control endpoint. During a restart it waits.
func (as *AuthorizationServer) call(ctx context.Context, method, path string, in, out any) error {
	as.mu.RLock()
	defer as.mu.RUnlock()
	return as.exchange(ctx, method, path, in, out)
}

// exchange calls the control endpoint. mu is held.
func (as *AuthorizationServer) exchange(ctx context.Context, method, path string, in, out any) error {
	return Call(ctx, method, as.control+path, nil, in, out)
}

func (as *AuthorizationServer) close() error {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.proc.Stop()
}
