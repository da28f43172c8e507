// Command bare-proxy is a httputil.ReverseProxy and nothing else, for comparison with mcp-token-proxy.
package main

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: bare-proxy <address to listen on> <server's URL>")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "bare-proxy:", err)
		os.Exit(1)
	}
}

// serve serves until the process is killed. The proxy keeps its connections to the server, as mcp-token-proxy does.
func serve(address, server string) error {
	target, err := url.Parse(server)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	transport.MaxIdleConns = 0
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport}
	httpServer := &http.Server{Addr: address, Handler: proxy, ReadHeaderTimeout: time.Minute}
	return httpServer.ListenAndServe()
}
