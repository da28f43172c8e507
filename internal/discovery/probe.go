package discovery

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// hint is the result of an MCP server's answers to requests without a token.
type hint struct {
	bearer
	policy Policy // for the metadata's URL
	// nothing is set if every answer was HTTP 404 or 410.
	nothing bool
}

// The protocol versions of the probes.
const (
	discoverVersion   = "2026-07-28"
	initializeVersion = "2025-11-25"
)

const discoverBody = `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{` +
	`"io.modelcontextprotocol/protocolVersion":"` + discoverVersion + `",` +
	`"io.modelcontextprotocol/clientInfo":{"name":"` + userAgent + `","version":"1"},` +
	`"io.modelcontextprotocol/clientCapabilities":{}}}}`

const initializeBody = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{` +
	`"protocolVersion":"` + initializeVersion + `","capabilities":{},` +
	`"clientInfo":{"name":"` + userAgent + `","version":"1"}}}`

// probe is a request without a token, which a server may answer with a challenge.
type probe struct {
	name   string
	method string
	body   string
	header http.Header
}

// probes are tried in this order until a challenge names the metadata. GET changes nothing, but many servers answer
// it with 405 before they check the token. server/discover never opens a session, but servers of earlier versions
// refuse it before they check the token: these know initialize.
var probes = []probe{
	{"GET", http.MethodGet, "", nil},
	{"server/discover", http.MethodPost, discoverBody, http.Header{
		"Mcp-Protocol-Version": {discoverVersion},
		"Mcp-Method":           {"server/discover"},
	}},
	{"initialize", http.MethodPost, initializeBody, nil},
}

// challenge asks the MCP server without a token. It reads the challenge whatever the status: servers send it with
// 400, 403 and 405 as well as 401, and RFC 9110 section 11.6.1 permits it in any response. reached is false if the
// connection failed: the server's other URLs would fail too.
func (s *search) challenge(ctx context.Context, server *url.URL) (said hint, reached bool) {
	var answers tally
	temporary := false
	said.nothing = true
	for _, p := range probes {
		header := http.Header{"Accept": {"application/json, text/event-stream"}}
		if p.body != "" {
			header.Set("Content-Type", "application/json")
		}
		for name, values := range p.header {
			header[name] = values
		}
		a, fail := s.do(ctx, call{method: p.method, url: server, head: true, body: p.body, header: header})
		if fail != nil {
			if fail.unreached && !reached || reach.Ended(ctx) != nil {
				s.fail(server, fail)
				return said, reached
			}
			answers.add(fail.reason, p.name)
			temporary = temporary || fail.temporary
			reached, said.nothing = true, false
			continue
		}
		reached, said.policy = true, a.policy
		s.endSession(ctx, server, a)
		challenge := parseBearer(a.header.Values("WWW-Authenticate"))
		if challenge.scopes == nil {
			challenge.scopes = said.scopes
		}
		if said.scopes == nil || challenge.metadata != "" {
			said.bearer = challenge
		}
		if said.metadata != "" {
			said.nothing = false
			return said, true
		}
		answers.add(statusText(server, a), p.name)
		temporary = temporary || reach.Busy(a.status)
		said.nothing = said.nothing && (a.status == http.StatusNotFound || a.status == http.StatusGone)
	}
	s.attempts = append(s.attempts, Attempt{
		URL:       shownURL(server),
		Reason:    "asked without a token: " + answers.String() + "; no challenge names resource_metadata",
		Temporary: temporary,
	})
	return said, true
}

// endSession ends the session if an answer opened one: MCP servers up to version 2025-11-25 do so for initialize, and
// some for every first request. If a server ignores endSession, its session times out.
func (s *search) endSession(ctx context.Context, server *url.URL, a *answer) {
	id := a.header.Get("Mcp-Session-Id")
	if !isVisible(id, maxValue) {
		return
	}
	_, _ = s.do(ctx, call{method: http.MethodDelete, url: server, head: true, header: http.Header{
		"Mcp-Session-Id":       {id},
		"Mcp-Protocol-Version": {initializeVersion},
	}})
}

// tally holds the answers to probes: each answer with its probes.
type tally []struct {
	answer string
	probes []string
}

func (t *tally) add(answer, probe string) {
	for i := range *t {
		if (*t)[i].answer == answer {
			(*t)[i].probes = append((*t)[i].probes, probe)
			return
		}
	}
	*t = append(*t, struct {
		answer string
		probes []string
	}{answer, []string{probe}})
}

// String reads "HTTP 405 (GET), HTTP 400 (server/discover, initialize)".
func (t tally) String() string {
	parts := make([]string, len(t))
	for i, entry := range t {
		parts[i] = entry.answer + " (" + strings.Join(entry.probes, ", ") + ")"
	}
	return strings.Join(parts, ", ")
}
