// Command floor-plugin runs package floor as a plugin of Vault.
package main

import (
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/floor"
)

func main() {
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	meta := &api.PluginAPIClientMeta{}
	flags := meta.FlagSet()
	tokenBytes := flags.Int("token-bytes", 0, "size of the access token")
	scope := flags.String("scope", "", "scope of the access token")
	if err := flags.Parse(os.Args[1:]); err != nil {
		log.Error("bad arguments", "error", err)
		os.Exit(2)
	}
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: floor.Factory(floor.Answer(*tokenBytes, *scope)),
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
		Logger:             log,
	})
	if err != nil {
		log.Error("the plugin could not be served", "error", err)
		os.Exit(1)
	}
}
