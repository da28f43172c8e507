package mcpoauth

import (
	"net/http"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestPortsThatDoNotExistAreRefused(t *testing.T) {
	m := newMount(t)
	for _, port := range []string{"0", "65536", "99999"} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{
			"token_url": "https://as.example.com:" + port + "/token", "client_id": "c", "client_secret": secret,
		}, "between 1 and 65535")
	}
}
