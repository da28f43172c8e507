package bed

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/api"
)

// An Identity is a broker in Vault: an AppRole with policies, and its entity.
type Identity struct {
	Name     string
	RoleID   string
	SecretID string
	EntityID string
	Client   *api.Client // logged in
}

// PutPolicy writes a policy.
func (v *Vault) PutPolicy(ctx context.Context, name, rules string) error {
	root, err := v.Root()
	if err != nil {
		return err
	}
	return root.Sys().PutPolicyWithContext(ctx, name, rules)
}

// NewIdentity creates an AppRole with the given policies and logs in with it.
func (v *Vault) NewIdentity(ctx context.Context, name string, policies ...string) (*Identity, error) {
	root, err := v.Root()
	if err != nil {
		return nil, err
	}
	_, err = root.Logical().WriteWithContext(ctx, appRole(name), map[string]any{"token_policies": policies})
	if err != nil {
		return nil, fmt.Errorf("create AppRole %s: %w", name, err)
	}
	return v.Login(ctx, name)
}

func appRole(name string) string { return "auth/approle/role/" + name }

// Login logs in with an AppRole, as a broker with its role id and a secret id.
func (v *Vault) Login(ctx context.Context, name string) (*Identity, error) {
	root, err := v.Root()
	if err != nil {
		return nil, err
	}
	role := appRole(name)
	id := &Identity{Name: name}
	roleID, err := root.Logical().ReadWithContext(ctx, role+"/role-id")
	if err != nil {
		return nil, err
	}
	id.RoleID, _ = roleID.Data["role_id"].(string)
	secretID, err := root.Logical().WriteWithContext(ctx, role+"/secret-id", nil)
	if err != nil {
		return nil, err
	}
	id.SecretID, _ = secretID.Data["secret_id"].(string)

	id.Client, err = v.Client("")
	if err != nil {
		return nil, err
	}
	login, err := id.Client.Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{
		"role_id": id.RoleID, "secret_id": id.SecretID,
	})
	if err != nil {
		return nil, fmt.Errorf("log in with AppRole %s: %w", name, err)
	}
	// The first login creates the entity.
	id.EntityID = login.Auth.EntityID
	id.Client.SetToken(login.Auth.ClientToken)
	return id, nil
}
