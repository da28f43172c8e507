package bed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// A CA issues certificates for the authorization server's HTTPS listener and for clients (tls_client_auth, RFC 8705).
type CA struct {
	PEM     string // its own certificate
	Subject string // distinguished name (RFC 4514)

	cert *x509.Certificate
	key  crypto.Signer
}

// A Certificate is a certificate with its private key.
type Certificate struct {
	PEM     string
	KeyPEM  string // PKCS#8
	Subject string // distinguished name (RFC 4514)
}

// NewCA makes a certificate authority.
func NewCA() (*CA, error) {
	ca := new(CA)
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "bed CA"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	var err error
	if ca.cert, ca.key, err = issue(template, nil, nil); err != nil {
		return nil, err
	}
	ca.PEM, ca.Subject = encodePEM("CERTIFICATE", ca.cert.Raw), ca.cert.Subject.String()
	return ca, nil
}

// Server issues a certificate for a listener on the loopback address.
func (ca *CA) Server() (*Certificate, error) {
	return ca.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "authorization server"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// Client issues a certificate for a client, with name as its common name and as a DNS name.
func (ca *CA) Client(name string) (*Certificate, error) {
	return ca.issue(&x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"bed"}, CommonName: name},
		DNSNames:    []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (ca *CA) issue(template *x509.Certificate) (*Certificate, error) {
	template.KeyUsage = x509.KeyUsageDigitalSignature
	cert, key, err := issue(template, ca.cert, ca.key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &Certificate{
		PEM:     encodePEM("CERTIFICATE", cert.Raw),
		KeyPEM:  encodePEM("PRIVATE KEY", der),
		Subject: cert.Subject.String(),
	}, nil
}

// issue makes a key and its certificate, signed by the parent or self-signed.
func issue(template, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = template.NotBefore.AddDate(1, 0, 0)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// ServerFiles issues a certificate for a listener, and writes it ("cert"), its key ("key") and the CA for its clients
// ("ca") to files in dir. It returns their paths.
func (ca *CA) ServerFiles(dir string) (map[string]string, error) {
	server, err := ca.Server()
	if err != nil {
		return nil, err
	}
	files := make(map[string]string)
	for name, content := range map[string]string{"key": server.KeyPEM, "cert": server.PEM, "ca": ca.PEM} {
		files[name] = filepath.Join(dir, "tls-"+name+".pem")
		if err := os.WriteFile(files[name], []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	return files, nil
}
