package bed

import (
	"context"
	"encoding/json"
	"fmt"
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

// ReadToken reads the token at path below the mount, such as "token/weather".
func (b *Bed) ReadToken(ctx context.Context, client *api.Client, path string) (*Token, error) {
	secret, err := client.Logical().ReadWithContext(ctx, Mount+"/"+path)
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
