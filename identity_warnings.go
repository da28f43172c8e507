package mcpoauth

import (
	"fmt"
	"net/url"
	"strings"
)

// maxDocumentURL is the longest client_id, in bytes, accepted by all servers that read documents: Auth0's limit.
const maxDocumentURL = 120

// entraAudience is the audience of Microsoft Entra ID's federated credentials.
const entraAudience = "api://AzureADTokenExchange"

// identityWarnings returns warnings about properties of an identity that some authorization servers refuse.
func (c *config) identityWarnings() []string {
	if c.Identity == identityStatic {
		return nil
	}
	var all []string
	if warning := portWarning(c.PublicURL); warning != "" {
		all = append(all, warning)
	}
	if u := c.documentURL(); c.Identity == identityDocument && len(u) > maxDocumentURL {
		all = append(all, fmt.Sprintf("the document's URL has %d bytes: some authorization servers, such as Auth0, accept at most %d: use a shorter name for the server or the mount", len(u), maxDocumentURL))
	}
	if len(c.Keys) > 0 && strings.EqualFold(c.assertionAudience(), entraAudience) {
		if key, err := c.key(c.Keys[len(c.Keys)-1]); err == nil && key.Alg != "RS256" {
			all = append(all, fmt.Sprintf("assertions are signed with %s, and Microsoft Entra ID accepts RS256 only: write key_type=rsa-2048 and signing_alg=\"\"", key.Alg))
		}
	}
	return all
}

// portWarning returns a warning if some authorization servers don't fetch from the public URL's port; "" otherwise.
func portWarning(publicURL string) string {
	u, err := url.Parse(publicURL)
	if err != nil || publicURL == "" || u.Port() == "443" || u.Port() == "" && u.Scheme == "https" {
		return ""
	}
	return "public_url has another port than 443: some authorization servers, such as Anthropic's, fetch from that port only"
}
