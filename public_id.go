package mcpoauth

import (
	"crypto/rand"
	"strings"
)

// publishes reports whether authorization servers may fetch the config's public keys.
func (c *config) publishes() bool {
	return c != nil && (c.PublishJWKS || c.Identity != identityStatic)
}

// publicID is the name in the URLs of what the config of a server publishes; empty if it publishes nothing.
// Entries of schema 2 published under the server's own name, and keep that until another is drawn (see trusted_for.go).
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

// publicIDChars is how many characters of a public id are random: 80 bits. Some authorization servers take
// no URL of more than 120 bytes.
const publicIDChars = 16

func newPublicID(server string) string {
	return server + "-" + strings.ToLower(rand.Text()[:publicIDChars])
}

// serverOf is the server's name in a public id.
func serverOf(id string) string { return id[:max(0, len(id)-publicIDChars-1)] }
