package acceptance

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// An sdkUpstream is an upstream whose MCP server uses an SDK.
type sdkUpstream struct {
	*upstream
	server *bed.SDKServer
}

// newSDKUpstream starts an MCP server, and registers a client. It returns nil if the server is in Python and the
// machine has no Python.
func newSDKUpstream(t *testing.T, program string, options bed.SDKOptions) *sdkUpstream {
	t.Helper()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	if options.Scopes != nil {
		options.Issuer = u.bed.AS.Issuer
	}
	server, err := u.bed.NewSDKServer(t.Context(), program, options, bed.Resource{Scope: u.client.Scope, TTL: 5 * time.Minute})
	if errors.Is(err, bed.ErrNoPython) {
		t.Logf("NOT RUN: %s, as %v.", program, err)
		return nil
	}
	bed.OK(t, err)
	return &sdkUpstream{u, server}
}

// works checks that the MCP server accepts the tokens of a config, with the resource and scopes of its metadata.
func (u *sdkUpstream) works(t *testing.T, changes map[string]any) {
	t.Helper()
	settings := map[string]any{"server_url": u.server.URL, "client_id": u.client.ID, "client_secret": u.client.Secret}
	maps.Copy(settings, changes)
	if answer := u.write(t, "config/"+u.name, settings); answer != nil && len(answer.Warnings) > 0 {
		t.Errorf("the write warns %q", answer.Warnings)
	}
	token := bed.Must(u.bed.ReadToken(t.Context(), u.root, "token/"+u.name))(t)
	tools, err := u.server.ListTools(t.Context(), token.Authorization)
	if err != nil || !slices.Equal(tools, []string{"forecast"}) {
		t.Errorf("with the token the tools are %q, %v", tools, err)
	}
	if tools, err := u.server.ListTools(t.Context(), ""); err == nil {
		t.Errorf("without a token the tools are %q", tools)
	}
	requests := u.requests(t)
	last := requests[len(requests)-1]
	if last.Resource != u.server.Resource || last.Scope != "tools:list" || last.Status != http.StatusOK {
		t.Errorf("the token request was %+v, want one for %s", last, u.server.Resource)
	}
	status := u.read(t, "status/"+u.name)
	if text(status["resource"]) != text([]string{u.server.Resource}) || text(status["scopes"]) != `["tools:list"]` || text(status["warnings"]) != "[]" {
		t.Errorf("the status is %v", status)
	}
}

// Servers built with the usual SDKs are discovered from their URL, and accept the tokens. A config that names the
// authorization server has the same defaults.
func TestServersOfTheSDKs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ program, resource string }{
		"Python":               {"python_sdk.py", "/mcp"}, // its issuer ends in a slash
		"Python, for origin":   {"python_sdk.py", ""},
		"FastMCP":              {"fastmcp_server.py", "/mcp"}, // its issuer ends in a slash
		"TypeScript":           {"typescript_sdk.mjs", "/mcp"},
		"TypeScript, for root": {"typescript_sdk.mjs", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newSDKUpstream(t, c.program, bed.SDKOptions{Resource: c.resource, Scopes: []string{"tools:list"}})
			if u == nil {
				return
			}
			if strings.HasSuffix(u.server.Resource, "/") != (c.resource == "") {
				t.Errorf("the server publishes %s", u.server.Resource)
			}
			u.works(t, nil)
			u.checkConfig(t)
			u.works(t, map[string]any{"issuer": u.bed.AS.Issuer})
			u.works(t, map[string]any{"issuer": u.bed.AS.Issuer + "/"})
			u.works(t, map[string]any{"issuer": "", "token_url": u.bed.AS.TokenURL()})
		})
	}
}

// A server without authorization names no authorization server. Sessions that discovery opens are closed.
func TestOpenServerOfAnSDK(t *testing.T) {
	t.Parallel()
	u := newSDKUpstream(t, "python_sdk.py", bed.SDKOptions{Resource: "/mcp"})
	if u == nil {
		return
	}
	settings := map[string]any{"server_url": u.server.URL, "client_id": u.client.ID, "client_secret": u.client.Secret}
	for url, answers := range map[string]string{
		u.server.URL:              "HTTP 400 (GET, server/discover), HTTP 200 (initialize)",
		u.server.URL + "/mistype": "HTTP 404 (GET, server/discover, initialize)",
	} {
		settings["server_url"] = url
		u.refuse(t, "config/"+u.name, settings, http.StatusBadRequest, "found no protected resource metadata")
		u.refuse(t, "config/"+u.name, settings, http.StatusBadRequest, url+": asked without a token: "+answers)
	}
	u.wantRequests(t, 0)
	settings["server_url"] = u.server.URL
	settings["token_url"] = u.bed.AS.TokenURL()
	settings["resource"] = u.mcp.URL // a resource of the authorization server
	if warnings := u.write(t, "config/"+u.name, settings); warnings == nil || len(warnings.Warnings) != 1 {
		t.Errorf("the write warns %+v", warnings)
	}
	bed.Eventually(t, time.Minute, func() error {
		log, err := u.server.Log()
		opened, ended := strings.Count(log, "Created new transport"), strings.Count(log, "Terminating session")
		if err == nil && (opened == 0 || opened != ended) {
			err = fmt.Errorf("%d sessions were opened, and %d ended", opened, ended)
		}
		return err
	})
}
