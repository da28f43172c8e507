package main

import (
	"testing"

	mcpoauth "github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth"
)

func TestVersionIsThePlugins(t *testing.T) {
	if version != mcpoauth.Version {
		t.Errorf("the proxy reports %s, and the plugin %s", version, mcpoauth.Version)
	}
}
