package discovery

// Result is what was found. Strings are visible ASCII.
type Result struct {
	// Issuer is the authorization server's identifier, as it spells it.
	Issuer string
	// TokenURL is the token endpoint: an absolute URL, https except as Request permits.
	TokenURL string
	// MTLSTokenURL is the token endpoint for clients with a certificate (RFC 8705 section 5); "" if
	// it is the same. Whether Policy permits it shows when it is called: most clients never do.
	MTLSTokenURL string
	// AuthMethods are the token_endpoint_auth_methods_supported; nil if the server does not say,
	// which means client_secret_basic (RFC 8414 section 2).
	AuthMethods []string
	// SigningAlgs are the token_endpoint_auth_signing_alg_values_supported; nil if the server does
	// not say.
	SigningAlgs []string
	// Published is what the MCP server says; zero with Issuer.
	Published
	// Others are other authorization servers that the MCP server names, at most 4; nil with Issuer.
	Others []string
	// Policy is what later calls of the token endpoints must stay under, without AllowPrivate: see
	// Policy.Or.
	Policy Policy
	// Warnings are what the operator should know, a sentence each.
	Warnings []string
}

// Published is what an MCP server's challenge and metadata say about the tokens that it takes.
type Published struct {
	// Scopes are those of the challenge, else the metadata's scopes_supported without those of OpenID
	// Connect; nil if there are none.
	Scopes []string
	// Resource is the resource identifier (RFC 9728 section 2) as published; "" without metadata.
	Resource string
}
