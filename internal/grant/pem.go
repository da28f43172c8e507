package grant

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

// pemField is a field for PEM. Its errors name the fault and the remedy, and never repeat the text.
type pemField struct {
	name  string // the field
	item  string // a block, in words
	all   string // its content, in words
	label string // the label of its blocks, for an example
	file  string // a file of it, for an example
	other string // advice on the counterpart: a key among certificates, a certificate beside a key
}

var (
	caCert = pemField{
		name: "ca_cert", item: "certificate", all: "certificates", label: "CERTIFICATE", file: "ca.pem",
		other: "does not belong here: write the CA's certificate alone, and treat the key as exposed",
	}
	certificate = pemField{
		name: "certificate", item: "certificate", all: "a certificate", label: "CERTIFICATE", file: "cert.pem",
		other: "has a field of its own, private_key",
	}
	clientCertificate = pemField{
		name: "client_certificate", item: "certificate", all: "a certificate", label: "CERTIFICATE", file: "cert.pem",
		other: "has a field of its own, client_certificate_key",
	}
	privateKey = pemField{
		name: "private_key", item: "private key", all: "a private key", label: "PRIVATE KEY", file: "key.pem",
		other: "has a field of its own, certificate",
	}
	clientCertificateKey = pemField{
		name: "client_certificate_key", item: "private key", all: "a private key", label: "PRIVATE KEY", file: "key.pem",
		other: "has a field of its own, client_certificate",
	}
)

// blocks returns the PEM blocks of text, one or more. Text before and between them is allowed, as in bundles
// and exports. Nothing else is skipped: a missing block would show only when it is needed.
func (f pemField) blocks(text string) ([]*pem.Block, error) {
	const begin = "-----BEGIN "
	reads := fmt.Sprintf("; with the vault command, %s=@%s reads a file", f.name, f.file)
	if !strings.Contains(text, begin) {
		return nil, fmt.Errorf(`%s must hold %s in PEM form ("-----BEGIN %s-----")%s`, f.name, f.all, f.label, reads)
	}
	if strings.Contains(text, `-----\n`) {
		return nil, fmt.Errorf(`%s holds \n in letters; PEM needs real line breaks%s`, f.name, reads)
	}
	var blocks []*pem.Block
	rest := []byte(text)
	for {
		var block *pem.Block
		before := len(rest)
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
		// The decoder skips a block that it cannot read, as if it were text between blocks.
		if used := text[len(text)-before : len(text)-len(rest)]; strings.Count(used, begin) != 1 {
			return nil, f.fault(len(blocks), "is damaged or cut short: copy the file again")
		}
	}
	if left := string(rest); strings.Contains(left, begin) {
		return nil, f.fault(len(blocks)+1, "is damaged or cut short: copy the file again")
	} else if strings.TrimSpace(left) != "" {
		return nil, fmt.Errorf("%s: what follows PEM block %d is not a %s: remove it", f.name, len(blocks), f.item)
	}
	return blocks, nil
}

// fault returns the error of the nth block, counted from 1.
func (f pemField) fault(n int, what string) error {
	return fmt.Errorf("%s: PEM block %d %s", f.name, n, what)
}

// certificates returns the certificates of text, one or more.
func (f pemField) certificates(text string) ([]*x509.Certificate, error) {
	blocks, err := f.blocks(text)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for i, block := range blocks {
		switch {
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, f.fault(i+1, "is a private key, which "+f.other)
		case block.Type != "CERTIFICATE":
			return nil, f.fault(i+1, "is not a certificate: only CERTIFICATE blocks belong here")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, f.fault(i+1, "is not an X.509 certificate: copy the file again")
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// privateKey returns the one private key of text: an *rsa.PrivateKey, *ecdsa.PrivateKey or
// ed25519.PrivateKey.
func (f pemField) privateKey(text string) (crypto.Signer, error) {
	blocks, err := f.blocks(text)
	if err != nil {
		return nil, err
	}
	var key crypto.Signer
	for i, block := range blocks {
		switch {
		case block.Type == "EC PARAMETERS":
			continue // openssl ecparam -genkey writes them before the key, which names its curve itself
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
			return nil, f.fault(i+1, "is encrypted: write the key without a passphrase, as openssl pkey -in "+f.file+" prints it")
		case block.Type == "OPENSSH PRIVATE KEY":
			return nil, f.fault(i+1, "is in OpenSSH's form: convert a copy of the file with ssh-keygen -p -m PKCS8 -f")
		case strings.HasSuffix(block.Type, "CERTIFICATE"):
			return nil, f.fault(i+1, "is a certificate, which "+f.other)
		case strings.HasSuffix(block.Type, "PUBLIC KEY"):
			return nil, f.fault(i+1, "is a public key: write the private key that belongs to it")
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, f.fault(i+1, "is not a private key: only one PRIVATE KEY block belongs here")
		case key != nil:
			return nil, f.fault(i+1, "is a second private key: write one alone")
		}
		if key = parsePrivateKey(block.Bytes); key == nil {
			return nil, f.fault(i+1, "is not a private key of a known kind: write an RSA, EC or Ed25519 key in PKCS#8, PKCS#1 or SEC 1 form")
		}
	}
	if key == nil {
		return nil, fmt.Errorf("%s holds EC parameters without a private key: copy the whole file", f.name)
	}
	return key, nil
}

// parsePrivateKey reads PKCS#8, PKCS#1 and SEC 1, whatever the block's label, which tools get wrong; nil if
// it fails. The parsers' errors are dropped: they name Go's functions.
func parsePrivateKey(der []byte) crypto.Signer {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, _ := key.(crypto.Signer) // X25519 keys don't sign
		return signer
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	return nil
}
