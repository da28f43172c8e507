package mcpoauth

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// updateKeys sets the signing key: the request's, or a new one if the request asks for it. The other fields must be
// set before. old is nil for a new config. made reports whether the plugin made a key: the authorization server
// cannot know it yet.
func (c *config) updateKeys(d *framework.FieldData, old *config) (made bool, err error) {
	made, err = c.setKeys(d, old)
	if len(c.Keys) == 0 && c.KeyID != nil && *c.KeyID == "" {
		c.KeyID = nil // only assertions have a kid
	}
	return made, err
}

func (c *config) setKeys(d *framework.FieldData, old *config) (made bool, err error) {
	givenPEM, givenKey := d.GetOk("private_key")
	givenKind, givenType := d.GetOk("key_type")
	pem, _ := givenPEM.(string)
	name, _ := givenKind.(string)
	kind := grant.KeyType(name)
	repurposed := old != nil && !c.samePurpose(old)
	switch {
	case pem != "" && kind != "":
		return false, badRequest("private_key and key_type contradict each other: write private_key for a key of your own, or key_type for one that the plugin makes")
	case pem != "" && c.Identity != identityStatic:
		return false, badRequest("private_key does not go with identity=%s, for which the plugin makes the key: leave private_key out", c.Identity)
	case pem != "":
		return false, c.takeKey(pem, d)
	case c.Identity != identityStatic && (repurposed || len(c.Keys) == 0), repurposed && c.KeyType != "" && !givenKey:
		return c.makeKey(cmp.Or(kind, c.KeyType, defaultKeyType), nil)
	case kind != "":
		return c.makeKey(kind, old)
	case c.Identity != identityStatic:
		return false, nil // an empty field asks for a plugin-made key, and the config has one
	case !givenKey && givenType && c.KeyType != "" && c.AuthMethod == grant.PrivateKeyJWT:
		return false, nil // an empty key_type asks for a key of any type, and the config has one
	case givenKey || givenType && c.KeyType != "": // both are empty: remove the key
		c.KeyType, c.Keys = "", nil
		return false, nil
	case c.AuthMethod == grant.PrivateKeyJWT && len(c.Keys) == 0:
		return c.makeKey(defaultKeyType, old)
	case c.KeyType == "" && len(c.Keys) > 0:
		return false, c.useKey(c.Keys[0].PEM) // key_id may have changed
	}
	return false, nil
}

// takeKey sets the operator's key. The kid and alg of a JWK set key_id and signing_alg unless the request gives them.
func (c *config) takeKey(text string, d *framework.FieldData) error {
	key, err := grant.ParseKey(text)
	if err != nil {
		return badRequest("%v", err)
	}
	id, alg := key.Named()
	if _, given := d.GetOk("key_id"); !given && id != "" {
		c.KeyID = &id
	}
	if _, given := d.GetOk("signing_alg"); !given && alg != "" {
		c.SigningAlg = alg
	}
	return c.useKey(text)
}

// useKey sets the operator's key under the config's key_id.
func (c *config) useKey(text string) error {
	key, err := grant.ParseKey(text)
	if err != nil {
		return badRequest("%v", err)
	}
	if c.KeyID != nil && *c.KeyID != "" {
		key.ID = *c.KeyID
	}
	stored, err := storedKey(key, time.Time{})
	if err != nil {
		return err
	}
	c.KeyType, c.Keys = "", c.Keys.replaced(stored, time.Now())
	return nil
}

// makeKey makes a key unless the stored key has that type and the same route: a repeated write keeps the key.
func (c *config) makeKey(kind grant.KeyType, old *config) (made bool, err error) {
	if old != nil && old.KeyType == kind && len(old.Keys) > 0 && c.sameRoute(old) {
		return false, nil
	}
	if !slices.Contains(keyTypes, kind) {
		return false, notSupported("key_type", kind, keyTypes)
	}
	key, err := newSigningKey(kind, time.Time{})
	if err != nil {
		return false, err
	}
	c.KeyType, c.Keys = kind, c.Keys.replaced(key, time.Now())
	return true, nil
}
