package grant

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// ParseCACert returns the certificates of a PEM, one or more. Text between the blocks is allowed, as in bundles. Its
// errors name the block and the remedy. It fails rather than skip a block: a missing CA would show only when a
// connection fails.
func ParseCACert(pemText string) (*x509.CertPool, error) {
	certs, err := caCert.certificates(pemText)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool, nil
}

// ParseCertificate returns the certificate of a signing key, for Assertion.Certificate: the first in the
// PEM. The chain may follow. Its errors name the block and the remedy.
func ParseCertificate(pemText string, key *Key) (*x509.Certificate, error) {
	certs, err := certificate.certificates(pemText)
	if err != nil {
		return nil, err
	}
	if err := certificate.first(certs, func(c *x509.Certificate) bool { return belongs(c, key.signer) }); err != nil {
		return nil, err
	}
	return certs[0], nil
}

// ParseClientCertificate returns a client certificate for Request.Certificate, with Leaf set. certPEM holds the
// certificate first, then its chain if the server needs one. keyPEM holds its key: RSA of 2048 to 8192 bits, P-256,
// P-384, P-521 or Ed25519. The caller checks whether the certificate has expired. The errors name the block and the
// remedy, and repeat nothing of either text.
func ParseClientCertificate(certPEM, keyPEM string) (*tls.Certificate, error) {
	certs, err := clientCertificate.certificates(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := clientCertificateKey.privateKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if err := clientCertificateKey.strong(key.Public(), elliptic.P256(), elliptic.P384(), elliptic.P521()); err != nil {
		return nil, err
	}
	if err := clientCertificate.first(certs, func(c *x509.Certificate) bool { return belongs(c, key) }); err != nil {
		return nil, err
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, cert := range certs {
		pair.Certificate = append(pair.Certificate, cert.Raw)
	}
	return pair, nil
}

// first returns an error unless the first certificate belongs to the key.
func (f pemField) first(certs []*x509.Certificate, belongs func(*x509.Certificate) bool) error {
	for i, cert := range certs {
		switch {
		case !belongs(cert):
		case i == 0:
			return nil
		default:
			return fmt.Errorf("%s: PEM block %d is the certificate of the private key, but block 1 must be: put it first, then its chain", f.name, i+1)
		}
	}
	return fmt.Errorf("%s does not belong to the private key: write the certificate and the key of one pair", f.name)
}
