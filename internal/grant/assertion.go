package grant

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// assertionType is the client_assertion_type of a JWT (RFC 7523 section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// An assertion is valid from assertionEarly before it is made: servers refuse an iat or nbf ahead of their clock,
// some even by a second. Unless Lifetime is set it is valid for assertionLife in all: longer than any request takes,
// and as short as strict servers demand.
const (
	assertionLife  = 60 * time.Second
	assertionEarly = 5 * time.Second
)

// Assertion holds the key and the claims of assertions (RFC 7523 sections 2.1 and 2.2).
type Assertion struct {
	// Key signs, with its Alg. Its ID is the kid; without an ID the kid is left out.
	Key *Key
	// Issuer and Subject are the iss and sub claims if an issuer vouches for the client, and must differ.
	// If both are "", the client vouches for itself and both claims are its client_id (RFC 7523 section 3).
	Issuer, Subject string
	// Lifetime is how long an assertion is valid; 0 is 60 seconds.
	Lifetime time.Duration
	// Audience is the aud claim, sent as a single string: the issuer's identifier, the token endpoint's URL, or
	// another name expected by the authorization server.
	Audience string
	// Type is the typ header: TypeJWT, TypeClientAuthentication or, for TypeJWT, "".
	Type string
	// Claims are added to those of RFC 7523. A registered claim (IsRegisteredClaim) fails the request before
	// it is sent.
	Claims map[string]any
	// Certificate is the key's certificate. It adds the x5t#S256 header, for servers that know the key by its
	// certificate. It may be nil.
	Certificate *x509.Certificate
}

// The types of client assertions, by their typ header.
const (
	// TypeJWT is the general type of JWTs (RFC 7519 section 5.1).
	TypeJWT = "JWT"
	// TypeClientAuthentication is the explicit type of RFC 10070.
	TypeClientAuthentication = "client-authentication+jwt"
)

// registeredClaims are the claims of RFC 7519 section 4.1, which identify the client and limit the lifetime.
var registeredClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}

// IsRegisteredClaim reports whether assertion_claims may not hold the claim: the plugin sets it itself.
func IsRegisteredClaim(name string) bool { return slices.Contains(registeredClaims, name) }

// sign makes an assertion for one request, since servers refuse a jti seen before. Its error is an *UnavailableError.
func (a *Assertion) sign(clientID string, now time.Time) (string, error) {
	switch {
	case a == nil || a.Key == nil || a.Key.signer == nil:
		return "", unsendable("%s needs a private_key", PrivateKeyJWT)
	case a.Audience == "":
		return "", unsendable("%s needs an assertion_audience", PrivateKeyJWT)
	case a.Issuer == "" && clientID == "":
		return "", unsendable("%s needs a client_id", PrivateKeyJWT)
	case a.Issuer != "" && (a.Subject == "" || a.Subject == a.Issuer):
		return "", unsendable("assertion_subject is missing or equals the issuer: write another one")
	}
	if err := a.Key.fits(a.Key.Alg); err != nil {
		return "", unsendable("%s", err)
	}
	claims := map[string]any{}
	for name, value := range a.Claims {
		if IsRegisteredClaim(name) {
			return "", unsendable("assertion_claims must not hold %q", name)
		}
		claims[name] = value
	}
	issued := now.Add(-assertionEarly)
	claims["iss"], claims["sub"] = clientID, clientID
	if a.Issuer != "" {
		claims["iss"], claims["sub"] = a.Issuer, a.Subject
	}
	claims["aud"] = a.Audience  // an array would be refused by strict servers
	claims["jti"] = rand.Text() // at least 128 bits
	// Whole seconds: servers fail on fractions.
	claims["iat"], claims["nbf"] = issued.Unix(), issued.Unix()
	claims["exp"] = issued.Add(cmp.Or(a.Lifetime, assertionLife)).Unix()
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", unsigned()
	}
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(a.typ()))
	if a.Key.ID != "" {
		options.WithHeader("kid", a.Key.ID)
	}
	if a.Certificate != nil {
		sum := sha256.Sum256(a.Certificate.Raw)
		options.WithHeader("x5t#S256", base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	signer, err := jose.NewSigner(a.Key.signingKey(), options)
	if err != nil {
		return "", unsigned()
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", unsigned()
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		return "", unsigned()
	}
	return compact, nil
}

// typ returns the typ header. TypeJWT is the default: all servers in this plugin's tests accept it, and some refuse
// every other type.
func (a *Assertion) typ() string {
	if a.Type == "" {
		return TypeJWT
	}
	return a.Type
}

// sent describes the assertion for an error.
func (a *Assertion) sent() string {
	kid := "no kid"
	if a.Key.ID != "" {
		kid = "kid " + quoted(a.Key.ID)
	}
	var who string
	if a.Issuer != "" {
		who = fmt.Sprintf("iss %s, sub %s, ", quoted(a.Issuer), quoted(a.Subject))
	}
	return fmt.Sprintf("the assertion had %saud %s, typ %s, alg %s and %s", who, quoted(a.Audience), a.typ(), a.Key.Alg, kid)
}

// unsigned returns the error for a key that fails to sign. It leaves out the library's error, since errors may be
// logged.
func unsigned() *UnavailableError {
	return unsendable("the client assertion could not be signed with the private key")
}
