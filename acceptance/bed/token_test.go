package bed

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/vault/api"
)

// Vault's client follows one redirect, and returns the second without an error.
func TestReadRawRefusesASecondRedirect(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("/v1/elsewhere", http.StatusTemporaryRedirect))
	defer server.Close()
	client := Must(api.NewClient(&api.Config{Address: server.URL}))(t)
	if response, err := ReadRaw(t.Context(), client, "kv/control"); err == nil {
		t.Errorf("status %d, want an error", response.StatusCode)
	}
}
