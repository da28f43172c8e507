package bed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

// startCluster makes the nodes a cluster behind two balancers.
func (b *Bed) startCluster(ctx context.Context) error {
	root, err := b.Nodes[0].Root()
	if err != nil {
		return err
	}
	// By default, raft waits 10 s before a new node may vote.
	_, err = root.Logical().WriteWithContext(ctx, "sys/storage/raft/autopilot/configuration", map[string]any{
		"server_stabilization_time": "1s",
	})
	if err != nil {
		return fmt.Errorf("configure raft's autopilot: %w", err)
	}
	err = Poll(ctx, 60*time.Second, func() error {
		voters, err := voters(ctx, root)
		if err == nil && voters < len(b.Nodes) {
			err = fmt.Errorf("%d of %d nodes may vote", voters, len(b.Nodes))
		}
		return err
	})
	if err != nil {
		return err
	}
	if b.Vault, err = b.balanced(false); err != nil {
		return err
	}
	b.Standbys, err = b.balanced(true)
	return err
}

func (b *Bed) balanced(standbys bool) (*Vault, error) {
	balancer, err := startBalancer(b.Nodes)
	if err != nil {
		return nil, err
	}
	b.onClose(balancer.close)
	if standbys {
		ctx, stop := context.WithCancel(context.Background())
		stopped := make(chan struct{})
		go func() { defer close(stopped); balancer.followStandbys(ctx, b.Nodes) }()
		b.onClose(func() error { stop(); <-stopped; return nil })
	}
	service := *b.Nodes[0].Vault
	service.Address = balancer.url
	return &service, nil
}

func voters(ctx context.Context, root *api.Client) (int, error) {
	answer, err := root.Logical().ReadWithContext(ctx, "sys/storage/raft/configuration")
	if err != nil {
		return 0, err
	}
	config, _ := answer.Data["config"].(map[string]any)
	servers, _ := config["servers"].([]any)
	n := 0
	for _, server := range servers {
		if s, _ := server.(map[string]any); s["voter"] == true {
			n++
		}
	}
	return n, nil
}

// Active returns the active node.
func (b *Bed) Active(ctx context.Context) (*Node, error) {
	err := errors.New("no node is running")
	for _, node := range b.Nodes {
		if node.proc.Load().ended() {
			continue
		}
		var client *api.Client
		if client, err = node.Client(""); err != nil {
			return nil, err
		}
		var health *api.HealthResponse
		health, err = client.Sys().HealthWithContext(ctx)
		if err == nil && !health.Sealed && !health.Standby {
			return node, nil
		}
	}
	return nil, fmt.Errorf("no node is active: %w", err)
}

// WaitHealthy waits until one node is active and all others are its standbys.
func (b *Bed) WaitHealthy(ctx context.Context) error {
	return Poll(ctx, 60*time.Second, func() error {
		if _, err := b.Active(ctx); err != nil {
			return err
		}
		for _, node := range b.Nodes {
			client, err := node.Client("")
			if err == nil {
				err = node.ready(ctx, client)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Mounted returns an error if a node does not have the plugin's mount. A standby that answers reads receives it later
// than the active node.
func (b *Bed) Mounted(ctx context.Context) error {
	for _, node := range b.Nodes {
		client, err := node.Client(b.Vault.RootToken)
		if err != nil {
			return err
		}
		response, err := ReadRaw(ctx, client, Mount+"/metrics")
		if err != nil {
			return fmt.Errorf("the mount at %s: %w", node.ID, err)
		}
		response.Body.Close()
	}
	return nil
}

// A balancer is an HTTP proxy in front of the nodes of a cluster. It sends each request to the node that answered
// last. If this node does not answer or cannot serve, the balancer tries each of the others once.
type balancer struct {
	url   string
	nodes []*url.URL
	last  atomic.Int32 // index of that node
	http  *http.Server
	next  *http.Transport
}

func startBalancer(nodes []*Node) (*balancer, error) {
	b := &balancer{next: http.DefaultTransport.(*http.Transport).Clone()}
	for _, node := range nodes {
		u, err := url.Parse(node.Address)
		if err != nil {
			return nil, err
		}
		b.nodes = append(b.nodes, u)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.url = "http://" + listener.Addr().String()
	b.next.MaxIdleConnsPerHost = 100
	b.http = &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(b.nodes[0]) },
		Transport: roundTripper(b.try),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}}
	go func() { _ = b.http.Serve(listener) }() // returns when the server is closed
	return b, nil
}

// followStandbys prefers a standby, like a load balancer that checks sys/health.
func (b *balancer) followStandbys(ctx context.Context, nodes []*Node) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		for i, node := range nodes {
			client, err := node.Client("")
			if err != nil {
				continue
			}
			if health, err := client.Sys().HealthWithContext(ctx); err == nil && !health.Sealed && health.Standby {
				b.last.Store(int32(i))
				break
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// try sends a request to the nodes in turn until one serves it. A write that has reached a node is not repeated.
func (b *balancer) try(req *http.Request) (resp *http.Response, err error) {
	var body []byte
	if req.Body != nil {
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	first := b.last.Load()
	for i := range len(b.nodes) {
		if resp != nil {
			resp.Body.Close()
		}
		node := (int(first) + i) % len(b.nodes)
		again := req.Clone(req.Context())
		again.URL.Host = b.nodes[node].Host
		again.Body = io.NopCloser(bytes.NewReader(body))
		resp, err = b.next.RoundTrip(again)
		if err == nil && resp.StatusCode < http.StatusInternalServerError {
			b.last.CompareAndSwap(first, int32(node))
			return resp, nil
		}
		if req.Method != http.MethodGet && !errors.As(err, new(*net.OpError)) || req.Context().Err() != nil {
			break
		}
	}
	return resp, err
}

func (b *balancer) close() error {
	b.next.CloseIdleConnections()
	return b.http.Close()
}
