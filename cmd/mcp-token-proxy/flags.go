package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// options are the command line: a configuration file, or one route.
type options struct {
	file    string
	check   bool
	version bool
	one     config // from the flags for one route
	oneSet  bool   // whether any of these flags is set
}

const usage = `Usage:
  mcp-token-proxy -config=FILE [-check]
  mcp-token-proxy -upstream=URL -token-path=PATH [-name=NAME] [-listen=ADDRESS] ... [-check]

A reverse proxy that adds the access tokens of vault-plugin-mcp-oauth to the requests of MCP brokers. It reads
them from the Vault that VAULT_ADDR or the configuration names. It needs VAULT_TOKEN, unless it is configured to log
in, has -vault-token-file, or calls a Vault Proxy that logs in.

`

// parseFlags parses the command line. It writes errors to errs.
func parseFlags(args []string, errs io.Writer) (*options, error) {
	o := &options{one: config{Listeners: []listener{{Type: "tcp"}}, Routes: []routeConfig{{}}}}
	l, r := &o.one.Listeners[0], &o.one.Routes[0]
	var tokenFile string
	f := flag.NewFlagSet("mcp-token-proxy", flag.ContinueOnError)
	f.SetOutput(errs)
	f.Usage = func() {
		fmt.Fprint(errs, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.file, "config", "", "the configuration `file`; only -check can be combined with it")
	f.BoolVar(&o.check, "check", false, "check the configuration without contacting a server, and exit")
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	f.StringVar(&l.Address, "listen", "127.0.0.1:8300", "`address` to listen on: on loopback, or unix:PATH")
	f.StringVar(&o.one.Monitoring.Address, "monitoring", "", "`address` for /healthz and /metrics (default off)")
	f.StringVar(&r.Name, "name", "mcp", "`name` of the route, whose URL is http://ADDRESS/NAME")
	f.StringVar(&r.Upstream, "upstream", "", "`URL` of the MCP server")
	f.StringVar(&r.TokenPath, "token-path", "", "`path` of the MCP server's token in Vault, such as mcp-oauth/token/files")
	f.StringVar(&r.CACert, "ca-cert", "", "PEM `file` with the CAs of the MCP server (default the system's)")
	f.StringVar(&tokenFile, "vault-token-file", "", "`file` with the Vault token, such as the sink of a Vault Agent; each request to Vault reads it")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, complain(errs, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	f.Visit(func(f *flag.Flag) {
		o.oneSet = o.oneSet || f.Name != "config" && f.Name != "check" && f.Name != "version"
	})
	if o.version {
		return o, nil
	}
	switch {
	case o.file != "" && o.oneSet:
		return nil, complain(errs, errors.New("-config and the flags for one route exclude each other"))
	case o.file == "" && !o.oneSet:
		return nil, complain(errs, errors.New("write -config, or -upstream and -token-path; -help lists the flags"))
	}
	if tokenFile != "" {
		o.one.AutoAuth = &autoAuth{Methods: []authMethod{{Type: "token_file", Config: authConfig{TokenFile: tokenFile}}}}
	}
	return o, nil
}

func complain(errs io.Writer, err error) error {
	fmt.Fprintln(errs, "mcp-token-proxy:", err)
	return err
}

// config returns the configuration, which is valid.
func (o *options) config() (*config, error) {
	if o.file == "" {
		o.one.splitUnix()
		return &o.one, o.one.validate()
	}
	content, err := os.ReadFile(o.file) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.file, err)
	}
	return c, nil
}
