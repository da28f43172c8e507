package brokerauth_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/brokerauth"
)

// A client sends the token of weather to its MCP server only.
func Example() {
	vault, err := api.NewClient(nil) // VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE
	if err != nil {
		log.Fatal(err)
	}
	source, err := brokerauth.NewSource(brokerauth.Config{Vault: vault, TokenPath: "mcp-oauth/token/weather"})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := brokerauth.NewTransport(source, "https://mcp.example.com/mcp")
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}

	response, err := client.Get("https://mcp.example.com/mcp")
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	log.Print(response.Status)
}

// An MCP server has revoked the first token. The transport reports it to Vault and repeats the request with the
// second token, so the caller does not notice.
func ExampleTransport() {
	vault := newVault()
	defer vault.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer first" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintln(w, "sunny spells")
	}))
	defer server.Close()

	source, err := brokerauth.NewSource(brokerauth.Config{Vault: clientOf(vault), TokenPath: "mcp-oauth/token/weather"})
	check(err)
	transport, err := brokerauth.NewTransport(source, server.URL)
	check(err)
	response, err := (&http.Client{Transport: transport}).Get(server.URL)
	check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(err)
	fmt.Print(response.Status, ": ", string(body))
	// Output: 200 OK: sunny spells
}

// Behind a Vault Agent or Vault Proxy with auto-auth, the client needs the listener's address and no token.
func ExampleNewSource_listener() {
	config := api.DefaultConfig()
	config.Address = "http://127.0.0.1:8100" // of the listener
	vault, err := api.NewClient(config)
	if err != nil {
		log.Fatal(err)
	}
	vault.ClearToken()           // even if VAULT_TOKEN is set
	vault.SetNamespace("team-a") // the mount's namespace, unless it is the root namespace

	source, err := brokerauth.NewSource(brokerauth.Config{Vault: vault, TokenPath: "mcp-oauth/token/weather/reader"})
	if err != nil {
		log.Fatal(err)
	}
	token, err := source.Token()
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("token %s until %s", token.Extra("token_id"), token.Expiry)
}

// A token is read once, and then in the background whenever Vault's ttl has passed.
func ExampleSource_Token() {
	vault := newVault()
	defer vault.Close()
	source, err := brokerauth.NewSource(brokerauth.Config{Vault: clientOf(vault), TokenPath: "mcp-oauth/token/weather"})
	check(err)
	for range 3 {
		token, err := source.Token()
		check(err)
		fmt.Println(token.Type(), token.Valid(), token.Extra("token_id"), token.Extra("scope"))
	}
	// Output:
	// Bearer true a7937b64b8caa58f tools:list
	// Bearer true a7937b64b8caa58f tools:list
	// Bearer true a7937b64b8caa58f tools:list
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// newVault acts as Vault with the plugin: it holds a token for weather, and another after a refresh.
func newVault() *httptest.Server {
	token, id := "first", "a7937b64b8caa58f"
	answer := func(w http.ResponseWriter, data map[string]any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/mcp-oauth/token/weather", func(w http.ResponseWriter, _ *http.Request) {
		obtained := time.Now().UTC()
		answer(w, map[string]any{
			"access_token": token, "token_type": "Bearer", "token_id": id, "scope": "tools:list", "ttl": 225,
			"last_vault_rotation": obtained.Format(time.RFC3339),
			"expires_at":          obtained.Add(5 * time.Minute).Format(time.RFC3339),
		})
	})
	mux.HandleFunc("PUT /v1/mcp-oauth/refresh/weather", func(w http.ResponseWriter, _ *http.Request) {
		token, id = "second", "16367aacb67a4a01"
		answer(w, map[string]any{"token_id": id, "refreshed": true})
	})
	return httptest.NewServer(mux)
}

// clientOf is a client of this Vault.
func clientOf(vault *httptest.Server) *api.Client {
	config := api.DefaultConfig()
	config.Address, config.AgentAddress = vault.URL, ""
	client, err := api.NewClient(config)
	check(err)
	return client
}
