package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/token"
)

// config is the configuration from a file, or from flags for one route. It shares the syntax of Vault Agent's
// configuration for the blocks they have in common.
type config struct {
	Listeners  []listener    `hcl:"listener"`
	Monitoring monitoring    `hcl:"monitoring"`
	Vault      vaultConfig   `hcl:"vault"`
	AutoAuth   *autoAuth     `hcl:"auto_auth"`
	Routes     []routeConfig `hcl:"route"`
	Unknown    positions     `hcl:",unusedKeyPositions"`
}

// positions holds the places of unknown keys in a file, by name.
type positions map[string][]token.Pos

// A listener is an address that brokers connect to.
type listener struct {
	Type         string    `hcl:",key"`               // tcp or unix
	Address      string    `hcl:"address"`            // host:port, or a path
	TLSCert      string    `hcl:"tls_cert_file"`      // PEM file: the certificate, then its chain
	TLSKey       string    `hcl:"tls_key_file"`       // PEM file: its key
	TLSClientCAs string    `hcl:"tls_client_ca_file"` // PEM file: the authorities of clients' certificates; if empty, clients don't need a certificate
	Hosts        []string  `hcl:"hosts"`              // further names for a request's Host, beside those of loopback and of the certificate
	Unknown      positions `hcl:",unusedKeyPositions"`
}

// monitoring is the address of /healthz and /metrics.
type monitoring struct {
	Address string    `hcl:"address"` // host:port; if empty, they are not served
	Unknown positions `hcl:",unusedKeyPositions"`
}

// vaultConfig names the Vault to read from. Unset fields come from the environment: VAULT_ADDR and so on.
type vaultConfig struct {
	Address   string    `hcl:"address"`
	Namespace string    `hcl:"namespace"`
	CACert    string    `hcl:"ca_cert"` // PEM file
	Unknown   positions `hcl:",unusedKeyPositions"`
}

// autoAuth configures how the proxy logs in to Vault. Without it the proxy uses VAULT_TOKEN. If that is unset too,
// the address must be that of a Vault Agent or Vault Proxy that logs in: the proxy sends requests without a token.
type autoAuth struct {
	Methods []authMethod `hcl:"method"`
	Unknown positions    `hcl:",unusedKeyPositions"`
}

type authMethod struct {
	Type      string     `hcl:",key"`       // token_file, approle or kubernetes
	MountPath string     `hcl:"mount_path"` // default: auth/ and the type
	Config    authConfig `hcl:"config"`
	Unknown   positions  `hcl:",unusedKeyPositions"`
}

// authConfig has the parameters of all methods, named as in Vault Agent.
type authConfig struct {
	TokenFile    string    `hcl:"token_file_path"`     // token_file
	RoleIDFile   string    `hcl:"role_id_file_path"`   // approle
	SecretIDFile string    `hcl:"secret_id_file_path"` // approle
	Role         string    `hcl:"role"`                // kubernetes
	JWTFile      string    `hcl:"token_path"`          // kubernetes; default: the service account's
	Unknown      positions `hcl:",unusedKeyPositions"`
}

// A routeConfig is one MCP server.
type routeConfig struct {
	Name              string    `hcl:",key"`                // the route's path at the proxy is /<name>
	Upstream          string    `hcl:"upstream"`            // the MCP server's URL
	TokenPath         string    `hcl:"token_path"`          // path of the token in Vault
	CACert            string    `hcl:"ca_cert"`             // PEM file; default: the system's CAs
	AllowInsecureHTTP bool      `hcl:"allow_insecure_http"` // send the token over http to a host other than loopback
	KeptBody          int64     `hcl:"kept_body"`           // bytes of a request kept for the retry; default 4 MiB
	Unknown           positions `hcl:",unusedKeyPositions"`
}

// parseConfig parses and validates a configuration file.
func parseConfig(content []byte) (*config, error) {
	file, err := hcl.ParseBytes(content)
	if err != nil {
		return nil, fmt.Errorf("not HCL: %w", err)
	}
	if blocks, ok := file.Node.(*ast.ObjectList); ok {
		for _, name := range []string{"monitoring", "vault", "auto_auth"} {
			if n := len(blocks.Filter(name).Items); n > 1 {
				return nil, fmt.Errorf("there are %d %s blocks: write one", n, name)
			}
		}
	}
	c := &config{}
	if err := hcl.DecodeObject(c, file); err != nil {
		return nil, fmt.Errorf("a value has the wrong type: %w", err)
	}
	if err := c.known(); err != nil {
		return nil, err
	}
	return c, c.validate()
}

// known returns an error for an unknown key, so that a typo doesn't leave a setting out.
func (c *config) known() error {
	all := []positions{c.Unknown, c.Monitoring.Unknown, c.Vault.Unknown}
	for _, l := range c.Listeners {
		all = append(all, l.Unknown)
	}
	if c.AutoAuth != nil {
		all = append(all, c.AutoAuth.Unknown)
		for _, m := range c.AutoAuth.Methods {
			all = append(all, m.Unknown, m.Config.Unknown)
		}
	}
	for _, r := range c.Routes {
		all = append(all, r.Unknown)
	}
	for _, unknown := range all {
		for name, at := range unknown {
			if len(at) == 0 {
				return fmt.Errorf("%q is not known here", name)
			}
			return fmt.Errorf("line %d: %q is not known here", at[0].Line, name)
		}
	}
	return nil
}

// splitUnix turns the listener's address unix:PATH into a listener of type unix.
func (c *config) splitUnix() {
	l := &c.Listeners[0]
	if path, ok := strings.CutPrefix(l.Address, "unix:"); ok {
		l.Type, l.Address = "unix", path
	}
}

// validate checks everything that can be checked without reading files.
func (c *config) validate() error {
	if len(c.Listeners) != 1 {
		return fmt.Errorf("there are %d listener blocks: write one, as in listener \"tcp\" { address = \"127.0.0.1:8300\" }", len(c.Listeners))
	}
	if err := c.Listeners[0].validate(); err != nil {
		return fmt.Errorf("listener: %w", err)
	}
	if a := c.Monitoring.Address; a != "" {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("monitoring: address %q is not host:port", a)
		}
	}
	if err := c.validateAuth(); err != nil {
		return fmt.Errorf("auto_auth: %w", err)
	}
	if len(c.Routes) == 0 {
		return errors.New("a route block is missing, as in route \"files\" { ... }")
	}
	seen := map[string]bool{}
	for _, r := range c.Routes {
		if err := r.validate(); err != nil {
			return fmt.Errorf("route %q: %w", r.Name, err)
		}
		if seen[r.Name] {
			return fmt.Errorf("route %q is defined twice", r.Name)
		}
		seen[r.Name] = true
	}
	return nil
}

func (l *listener) validate() error {
	withTLS := l.TLSCert != "" || l.TLSKey != "" || l.TLSClientCAs != ""
	switch {
	case l.Type != "tcp" && l.Type != "unix":
		return fmt.Errorf("its type is %q: write listener \"tcp\" or listener \"unix\"", l.Type)
	case l.Address == "":
		return errors.New("address is missing")
	case l.Type == "unix" && withTLS:
		return errors.New("a unix socket does not use TLS: leave out tls_cert_file, tls_key_file and tls_client_ca_file")
	case l.Type == "unix":
		return nil
	case withTLS && (l.TLSCert == "" || l.TLSKey == ""):
		return errors.New("TLS needs tls_cert_file and tls_key_file")
	}
	for _, name := range l.Hosts {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:@*", r) }) {
			return fmt.Errorf("hosts: %q is not a host name in ASCII", name)
		}
	}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return fmt.Errorf("address %q is not host:port", l.Address)
	}
	if !withTLS && !isLoopback(host) {
		return fmt.Errorf("address %q is not of loopback, so every host in the network could use the tokens: write 127.0.0.1, or tls_cert_file and tls_key_file", l.Address)
	}
	return nil
}

func (c *config) validateAuth() error {
	if c.AutoAuth == nil {
		return nil
	}
	if len(c.AutoAuth.Methods) != 1 {
		return errors.New("write one method block, as in method \"approle\" { ... }")
	}
	m := c.AutoAuth.Methods[0]
	needs := map[string]map[string]string{
		"token_file": {"token_file_path": m.Config.TokenFile},
		"approle":    {"role_id_file_path": m.Config.RoleIDFile, "secret_id_file_path": m.Config.SecretIDFile},
		"kubernetes": {"role": m.Config.Role},
	}[m.Type]
	if needs == nil {
		return fmt.Errorf("unknown method %q: write token_file, approle or kubernetes", m.Type)
	}
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		if needs[name] == "" {
			return fmt.Errorf("method %q needs config = { %s = \"...\" }", m.Type, name)
		}
	}
	return nil
}

// routeName is the form of a route's name: one path segment.
var routeName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

func (r *routeConfig) validate() error {
	if !routeName.MatchString(r.Name) {
		return errors.New("a name is letters, digits, _, - and ., as in route \"files\" { ... }")
	}
	u, err := url.Parse(r.Upstream)
	switch {
	case r.Upstream == "":
		return errors.New("upstream is missing")
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("upstream is not a URL such as https://files.example.com/mcp")
	case u.User != nil || u.Fragment != "":
		return errors.New("upstream must not hold user information or a fragment")
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && !r.AllowInsecureHTTP:
		return errors.New("upstream sends the token over http to a host other than loopback: write https, or allow_insecure_http = true if the network between is trusted")
	case r.TokenPath == "":
		return errors.New("token_path is missing, as in mcp-oauth/token/files")
	}
	return nil
}

// isLoopback reports whether a host is this machine by name or address.
func isLoopback(host string) bool {
	if strings.ToLower(host) == "localhost" { //nolint:gocritic // EqualFold takes U+017F for an s
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
