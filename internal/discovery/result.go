package discovery

// Result is the result of a search. Strings are visible ASCII.
type Result struct {
	// Issuer is the authorization server's identifier, in its own spelling.
	Issuer string
	// TokenURL is the token endpoint: an absolute URL, https except as Request permits.
	TokenURL string
	// MTLSTokenURL is the token endpoint for clients with a certificate (RFC 8705 section 5); "" if it is the same.
	// Policy is checked only when it is called: most clients never call it.
	MTLSTokenURL string
	// AuthMethods are the token_endpoint_auth_methods_supported; nil if missing, which means
	// client_secret_basic (RFC 8414 section 2).
	AuthMethods []string
	// SigningAlgs are the token_endpoint_auth_signing_alg_values_supported; nil if missing.
	SigningAlgs []string
	// Published comes from the MCP server; zero with Request.Issuer.
	Published
	// Others are other authorization servers named by the MCP server, at most 4; nil with Request.Issuer.
	Others []string
	// Policy limits later calls of the token endpoints, without AllowPrivate: see Policy.Or.
	Policy Policy
	// Warnings are for the operator, a sentence each.
	Warnings []string
}

// Published describes the tokens accepted by an MCP server, from its challenge and its metadata.
type Published struct {
	// Scopes are the challenge's scopes, else the metadata's scopes_supported without those of OpenID Connect; nil if
	// both are missing.
	Scopes []string
	// Resource is the resource identifier (RFC 9728 section 2) as published; "" without metadata.
	Resource string
}
