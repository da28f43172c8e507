package bed

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// A Broker is an MCP client that reads its Authorization header from a file at every request, like a gateway with a
// Vault Agent.
type Broker struct {
	endpoint string
	header   func() (string, error) // value of the Authorization header; "" sends none
	secrecy  *Secrecy
	errors   *errorLog

	session *mcp.ClientSession // used by one goroutine at a time

	mu     sync.Mutex // guards counts
	counts BrokerCounts
}

// BrokerCounts counts a broker's calls.
type BrokerCounts struct {
	Calls    int   // number of tools/list calls
	Failures int   // failed calls, including failed connections
	Last     error // the last failure
}

// Run lists the server's tools at the given interval until ctx ends. After a failure it reconnects.
func (b *Broker) Run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		b.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *Broker) once(ctx context.Context) {
	_, err := b.ListTools(ctx)
	if ctx.Err() != nil {
		return // the end of the run has cancelled this call
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.Calls++
	if err != nil {
		b.counts.Failures++
		b.counts.Last = err
	}
}

// Counts returns the counts so far.
func (b *Broker) Counts() BrokerCounts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts
}

// ListTools returns the names of the server's tools. It connects first if necessary.
func (b *Broker) ListTools(ctx context.Context) ([]string, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	result, err := b.session.ListTools(ctx, nil)
	if err != nil {
		return nil, b.failed("list tools", err)
	}
	var names []string
	for _, tool := range result.Tools {
		names = append(names, tool.Name)
	}
	return names, nil
}

// CallTool calls a tool and returns the text of its answer.
func (b *Broker) CallTool(ctx context.Context, name string, arguments map[string]any) (string, error) {
	if err := b.connect(ctx); err != nil {
		return "", err
	}
	result, err := b.session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: arguments})
	if err != nil {
		return "", b.failed("call tool", err)
	}
	var text strings.Builder
	for _, content := range result.Content {
		if t, ok := content.(*mcp.TextContent); ok {
			text.WriteString(t.Text)
		}
	}
	return text.String(), nil
}

func (b *Broker) connect(ctx context.Context) error {
	if b.session != nil {
		return nil
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:   b.endpoint,
		HTTPClient: &http.Client{Transport: b.errors.transport(roundTripper(b.authorize))},
		// An open stream would hide that a token is no longer valid.
		DisableStandaloneSSE: true,
		MaxRetries:           -1,
	}, nil)
	if err != nil {
		return b.failed("connect", err)
	}
	b.session = session
	return nil
}

// failed drops the session, so that the next call reconnects.
func (b *Broker) failed(what string, err error) error {
	b.errors.add("broker: %s: %v", what, err)
	if b.session != nil {
		_ = b.session.Close()
		b.session = nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (b *Broker) authorize(req *http.Request) (*http.Response, error) {
	authorization, err := b.header()
	if err != nil {
		return nil, err
	}
	if authorization != "" {
		b.secrecy.AddToken(strings.TrimPrefix(authorization, "Bearer "))
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", authorization)
	}
	return http.DefaultTransport.RoundTrip(req)
}

func (b *Broker) close() error {
	if b.session == nil {
		return nil
	}
	return b.session.Close()
}
