package mcpoauth

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
)

// An issuer and a server_url may be the same text and mean another search: a secret
// that is brought for the one must not go to what was pinned for the other.
func TestIssuerThatIsSpelledAsTheServerURLIsAnotherSearch(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	n := as.count()
	_, err := m.do(logical.UpdateOperation, "config/weather", fields{
		"issuer": mcp.url(), "server_url": "https://mcp.example.com/mcp", "client_secret": "for-the-issuer-" + secretMark,
	})
	if err == nil {
		t.Error("what had been pinned for the MCP server was kept for the issuer")
	}
	as.asked(t, n, "after the write that names another issuer")
}

// repin changes what is pinned in the stored config, as another world would have had it.
func repin(m *mount, change func(*discovered)) {
	m.t.Helper()
	m.stop()
	c, err := m.store().config(m.t.Context(), "weather")
	if err == nil {
		change(c.Discovered)
		err = m.store().putConfig(m.t.Context(), "weather", c)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.start()
}

// The operator's permission holds for as long as it is written, and is not pinned.
func TestPrivateAddressesArePermittedForAsLongAsThatIsWritten(t *testing.T) {
	m, _, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	repin(m, func(d *discovered) { d.Policy = discovery.Policy{} }) // as if the server had been public
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", fields{"scopes": "a"}, "allow_private_addresses")
	m.write("config/weather", fields{"allow_private_addresses": true, "client_secret": secret, "scopes": "a"})
	m.write("config/weather", fields{"allow_private_addresses": false, "client_secret": secret, "verify": false})
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", fields{"scopes": "b"}, "allow_private_addresses")
}

func TestPinnedHTTPEndpointNeedsThePermissionThatLetItIn(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", with(mcp.client(), fields{"allow_insecure_http": true}))
	repin(m, func(d *discovered) {
		d.TokenURL = strings.Replace(as.URL, "127.0.0.1", "as.example.com", 1) + "/token"
	})
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
		fields{"allow_insecure_http": false, "client_secret": secret, "verify": false}, "uses http", "rediscover=true")
}

func TestHalfADeletePublishesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		m.storage.fail("delete token/")
		m.refused(http.StatusInternalServerError, logical.DeleteOperation, "config/weather", nil)
		m.storage.fail()
		m.refused(http.StatusNotFound, logical.ReadOperation, "config/weather", nil)
		synctest.Wait() // the set is looked at in the background
		m.unpublished("weather")
	})
}

func TestKeySetIsTheSame404WhateverIsSent(t *testing.T) {
	m := newMount(t)
	_, err := m.b.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.ReadOperation, Path: "jwks/absent", Storage: m.storage,
		Data: fields{"client_secret": []string{"a", "b"}},
	})
	if coded, ok := err.(logical.HTTPCodedError); !ok || coded.Code() != http.StatusNotFound {
		t.Errorf("got %v, want the 404", err)
	}
}

func TestWriteOfAKeyOfTheDefaultTypeCanBeRepeated(t *testing.T) {
	m, as := newMount(t), newAuthServer(t)
	write := with(as.endpoint(), fields{"token_endpoint_auth_method": "private_key_jwt", "key_type": ""})
	m.write("config/weather", write)
	was := m.storage.entries(t)
	m.write("config/weather", write)
	m.storage.unchanged(t, was)
}

func TestPrintingAConfigShowsNoSecret(t *testing.T) {
	m, as := newMount(t), newAuthServer(t)
	m.configure(as, nil)
	c, err := m.store().config(t.Context(), "weather")
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.request(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, printed := range []any{c, *c, q, *q} {
			checkSecretFree(t, "a printed config or request", fmt.Sprintf(verb, printed))
		}
	}
}
