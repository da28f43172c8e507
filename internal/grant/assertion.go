package grant

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// assertionType is the client_assertion_type of a JWT (RFC 7523 section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// An assertion is good from assertionEarly before it was made, since servers refuse an iat or nbf that
// is ahead of their clock, and not all allow for any difference. It lives for assertionLife in all,
// longer than any request takes and as short as strict servers ask.
const (
	assertionLife  = 60 * time.Second
	assertionEarly = 5 * time.Second
)

// Assertion is what client assertions (RFC 7523 section 2.2) are made of.
type Assertion struct {
	// Key signs, with its Alg, and is named by its ID.
	Key *Key
	// Audience is the aud claim, sent as a single string: the issuer's identifier, the token endpoint's
	// URL, or what else the authorization server wants to be called.
	Audience string
	// Certificate, of the key, adds the x5t#S256 header for servers that know the key by its
	// certificate; nil adds none.
	Certificate *x509.Certificate
}

// claims are those of RFC 7523 section 3. Times are whole seconds: servers fail on fractions.
type claims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"` // an array would be refused by strict servers
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

// sign makes a fresh assertion: servers refuse a jti that they have seen. Its error is an
// *UnavailableError.
func (a *Assertion) sign(clientID string, now time.Time) (string, error) {
	switch {
	case a == nil || a.Key == nil || a.Key.signer == nil:
		return "", unsendable("%s needs a private_key", PrivateKeyJWT)
	case a.Audience == "":
		return "", unsendable("%s needs an assertion_audience", PrivateKeyJWT)
	}
	if err := a.Key.fits(a.Key.Alg); err != nil {
		return "", unsendable("%s", err)
	}
	issued := now.Add(-assertionEarly)
	payload, err := json.Marshal(claims{
		Issuer:    clientID,
		Subject:   clientID,
		Audience:  a.Audience,
		ID:        rand.Text(), // at least 128 bits
		IssuedAt:  issued.Unix(),
		NotBefore: issued.Unix(),
		Expires:   issued.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", unsigned()
	}
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", a.Key.ID)
	if a.Certificate != nil {
		sum := sha256.Sum256(a.Certificate.Raw)
		options.WithHeader("x5t#S256", base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(a.Key.Alg), Key: a.Key.signer}, options)
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

// unsigned is the error of a key that fails at work. The library's own words are not for an error that
// may be logged.
func unsigned() *UnavailableError {
	return unsendable("the client assertion could not be signed with the private key")
}
