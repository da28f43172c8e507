package bed

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"
)

// A Token is the answer to reading a token path.
type Token struct {
	AccessToken       string    `json:"access_token"`
	Authorization     string    `json:"authorization"`
	ExpiresAt         time.Time `json:"expires_at"`
	Scope             string    `json:"scope"`
	LastVaultRotation time.Time `json:"last_vault_rotation"`
	TokenID           string    `json:"token_id"`
}

// ReadRaw reads a path. A redirect is an error: Vault's client follows one only, and a node that knows no active node
// redirects to another such node.
func ReadRaw(ctx context.Context, client *api.Client, path string) (*api.Response, error) {
	response, err := client.Logical().ReadRawWithContext(ctx, path)
	if err == nil && response.StatusCode >= http.StatusMultipleChoices {
		response.Body.Close()
		return nil, fmt.Errorf("read %s: %s", path, response.Status)
	}
	return response, err
}

// ReadToken reads the token at path below the mount, such as "token/weather".
func (b *Bed) ReadToken(ctx context.Context, client *api.Client, path string) (*Token, error) {
	response, err := ReadRaw(ctx, client, Mount+"/"+path)
	secret, err := client.Logical().ParseRawResponseAndCloseBody(response, err)
	if err != nil {
		return nil, err
	}
	if secret == nil {
		return nil, fmt.Errorf("read %s: %w", path, ErrNotFound)
	}
	if secret.LeaseID != "" || secret.Renewable {
		return nil, fmt.Errorf("read %s: a token is never a lease", path)
	}
	data, err := json.Marshal(secret.Data)
	if err != nil {
		return nil, err
	}
	token := new(Token)
	if err := json.Unmarshal(data, token); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	b.Secrecy.AddToken(token.AccessToken)
	return token, nil
}
