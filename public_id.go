package mcpoauth

import (
	"crypto/rand"
	"strings"
)

// publishes reports whether authorization servers may fetch the config's public keys.
func (c *config) publishes() bool {
	return c != nil && (c.PublishJWKS || c.Identity != identityStatic)
}

// publicID returns the public id of a server's config, which its published URLs contain; empty if it publishes
// nothing. Entries of schema 2 used the server's name, and keep it until assignPublicID draws an id.
func (c *config) publicID(server string) string {
	switch {
	case !c.publishes():
		return ""
	case c.PublicID == "":
		return server
	default:
		return c.PublicID
	}
}

// publicIDChars is the number of random characters in a public id: 80 bits. Some authorization servers refuse URLs of
// more than 120 bytes.
const publicIDChars = 16

func newPublicID(server string) string {
	return server + "-" + strings.ToLower(rand.Text()[:publicIDChars])
}

// serverOf returns the server's name in a public id.
func serverOf(id string) string { return id[:max(0, len(id)-publicIDChars-1)] }
