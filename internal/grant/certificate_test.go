package grant

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// someday is the end of the tests' certificates.
var someday = time.Now().Add(time.Hour)

// issued describes a certificate.
type issued struct {
	key      crypto.Signer
	by       *issuedCert // nil: self-signed
	ca       bool
	notAfter time.Time        // zero: someday
	usage    x509.ExtKeyUsage // zero: any
}

type issuedCert struct {
	leaf *x509.Certificate
	key  crypto.Signer
	pem  string
}

func issue(t testing.TB, is issued) *issuedCert {
	t.Helper()
	if is.notAfter.IsZero() {
		is.notAfter = someday
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "weather " + rand.Text()},
		NotBefore:             is.notAfter.Add(-24 * time.Hour),
		NotAfter:              is.notAfter,
		ExtKeyUsage:           []x509.ExtKeyUsage{is.usage},
		BasicConstraintsValid: true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  is.ca,
	}
	parent, parentKey := template, is.key
	if is.by != nil {
		parent, parentKey = is.by.leaf, is.by.key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, is.key.Public(), parentKey))(t)
	leaf := must(x509.ParseCertificate(der))(t)
	return &issuedCert{leaf: leaf, key: is.key, pem: pemOf("CERTIFICATE", der)}
}

func (c *issuedCert) pair(t testing.TB, chain ...*issuedCert) *tls.Certificate {
	t.Helper()
	text := c.pem
	for _, cert := range chain {
		text += cert.pem
	}
	return must(ParseClientCertificate(text, pkcs8(t, c.key)))(t)
}

// selfSigned is a certificate signed with its own key.
func selfSigned(t testing.TB, notAfter time.Time) *issuedCert {
	t.Helper()
	return issue(t, issued{key: testKeys()["P-256"], notAfter: notAfter})
}

// showing makes a request with a client certificate.
func showing(s *httptest.Server, cert *tls.Certificate) *request {
	r := over(s)
	r.AuthMethod, r.Certificate = TLSClientAuth, cert
	return r
}

// mutual starts a server that asks for client certificates of a CA.
func mutual(t *testing.T, ca *issuedCert, version uint16, mode tls.ClientAuthType, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	return newServer(t, handler, func(s *httptest.Server) {
		pool := x509.NewCertPool()
		pool.AddCert(ca.leaf)
		s.TLS = &tls.Config{ClientAuth: mode, ClientCAs: pool, MinVersion: version, MaxVersion: version}
		s.StartTLS()
	})
}

func TestClientCertificateAuthenticates(t *testing.T) {
	root := issue(t, issued{key: testKeys()["P-256"], ca: true})
	middle := issue(t, issued{key: testKeys()["P-384"], ca: true, by: root})
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		for _, kind := range []string{"RSA 2048", "P-256", "P-384", "P-521", "Ed25519"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				leaf := issue(t, issued{key: testKeys()[kind], by: middle})
				r := showing(mutual(t, root, version, tls.RequireAndVerifyClientCert, func(w http.ResponseWriter, req *http.Request) {
					if !req.TLS.PeerCertificates[0].Equal(leaf.leaf) {
						t.Error("another certificate")
					}
					req.ParseForm()
					// RFC 8705 section 2: the only parameter that identifies the client is client_id.
					if got := req.PostForm.Encode(); got != "client_id=weather&grant_type=client_credentials" {
						t.Errorf("sent %s", got)
					}
					if _, ok := req.Header["Authorization"]; ok {
						t.Error("an Authorization header as well")
					}
					granted(w, req)
				}), leaf.pair(t, middle)) // and an unused secret, which must not be sent
				if _, err := r.Do(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestRefusedClientCertificateIsNamed(t *testing.T) {
	root := issue(t, issued{key: testKeys()["P-256"], ca: true})
	middle := issue(t, issued{key: testKeys()["P-384"], ca: true, by: root})
	unserved := func(http.ResponseWriter, *http.Request) { t.Error("served") }
	const refused = "TLS: the server refused the client certificate: "
	const unknown = refused + "unknown certificate authority: the server does not trust its CA, or client_certificate lacks the chain to it"
	for name, tc := range map[string]struct {
		cert *tls.Certificate
		want string
	}{
		"another CA's":     {issue(t, issued{key: testKeys()["P-256"]}).pair(t), unknown},
		"without chain":    {issue(t, issued{key: testKeys()["P-256"], by: middle}).pair(t), unknown},
		"expired":          {issue(t, issued{key: testKeys()["P-256"], by: root, notAfter: time.Now().Add(-time.Minute)}).pair(t), refused + "expired certificate"},
		"a server's alone": {issue(t, issued{key: testKeys()["P-256"], by: root, usage: x509.ExtKeyUsageServerAuth}).pair(t), refused + "bad certificate"},
	} {
		for version, number := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
			t.Run(name+" "+version, func(t *testing.T) {
				r := showing(mutual(t, root, number, tls.RequireAndVerifyClientCert, unserved), tc.cert)
				wantFailure(t, r, tc.want)
			})
		}
	}
	own := issue(t, issued{key: testKeys()["P-256"]}).pair(t)
	weak := issue(t, issued{key: testKeys()["P-224"]}) // ParseClientCertificate refuses it
	for name, tc := range map[string]struct {
		mode   tls.ClientAuthType
		answer http.HandlerFunc
		cert   *tls.Certificate
		want   string
	}{
		"none to show": {
			tls.RequireAnyClientCert, unserved, nil,
			"TLS: the server requires a client certificate, which token_endpoint_auth_method tls_client_auth sends",
		},
		"by closing the connection": {
			tls.RequestClientCert, hangUp(t, func(net.Conn) {}), own,
			"connection closed without an answer: the server may have refused the client certificate",
		},
		"with a proxy's page": {
			tls.RequestClientCert, answering(400, "text/html", "<html>The SSL certificate error"), own,
			"not an answer of a token endpoint: check token_url and client_certificate (HTTP 400)",
		},
		"for its key": {
			tls.RequireAnyClientCert, unserved, &tls.Certificate{Certificate: [][]byte{weak.leaf.Raw}, PrivateKey: weak.key},
			"TLS: the server does not accept signatures by client_certificate_key: use a key of another type",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := mutual(t, root, tls.VersionTLS13, tc.mode, tc.answer)
			r := over(s)
			if tc.cert != nil {
				r = showing(s, tc.cert)
			}
			wantFailure(t, r, tc.want)
		})
	}
}

// RFC 8705 section 5: a server's ordinary endpoint does not request a certificate.
func TestRefusalSaysThatNoCertificateWasAskedFor(t *testing.T) {
	const hint = "the server asked for no client certificate: token_url must be its mutual TLS endpoint"
	ca := issue(t, issued{key: testKeys()["P-256"], ca: true})
	for _, tc := range []struct {
		mode   tls.ClientAuthType
		answer http.HandlerFunc
		want   string
	}{
		{tls.NoClientCert, answering(401, "", `{"error":"invalid_client","error_description":"who?"}`), "invalid_client: who? (HTTP 401); " + hint},
		{tls.NoClientCert, answering(401, "", `{"error":"invalid_client"}`), "invalid_client (HTTP 401); " + hint},
		{tls.NoClientCert, answering(403, "", ""), "refused without an OAuth error code (HTTP 403); " + hint},
		{tls.NoClientCert, answering(400, "", `{"error":"invalid_scope"}`), "invalid_scope (HTTP 400); no scope was asked for: write scopes="},
		{tls.RequestClientCert, answering(401, "", `{"error":"invalid_client"}`), "invalid_client (HTTP 401); tls_client_auth was used, with a client_certificate without a chain, which some servers take for self_signed_tls_client_auth: add the certificates of its CA to client_certificate, or write token_endpoint_auth_method=self_signed_tls_client_auth"},
	} {
		_, err := showing(mutual(t, ca, tls.VersionTLS13, tc.mode, tc.answer), ca.pair(t)).Do(t.Context())
		if _, ok := err.(*RefusedError); !ok || err.Error() != tc.want {
			t.Errorf("%T %v, want %s", err, err, tc.want)
		}
	}
}

func TestCertificateIsNotShownByOtherMethods(t *testing.T) {
	ca := issue(t, issued{key: testKeys()["P-256"], ca: true})
	r := over(mutual(t, ca, tls.VersionTLS13, tls.RequestClientCert, func(w http.ResponseWriter, req *http.Request) {
		if len(req.TLS.PeerCertificates) != 0 {
			t.Error("a certificate was shown")
		}
		answering(200, "", goodAnswer)(w, req)
	}))
	r.Certificate = ca.pair(t)
	if _, err := r.Do(t.Context()); err != nil {
		t.Error(err)
	}
}

// A server may know the certificate itself, without a CA.
func TestSelfSignedCertificateIsShown(t *testing.T) {
	self := issue(t, issued{key: testKeys()["P-256"]})
	r := over(mutual(t, issue(t, issued{key: testKeys()["P-384"], ca: true}), tls.VersionTLS13, tls.RequireAnyClientCert, func(w http.ResponseWriter, req *http.Request) {
		if !req.TLS.PeerCertificates[0].Equal(self.leaf) {
			t.Error("another certificate")
		}
		req.ParseForm()
		if got := req.PostForm.Get("client_id"); got != "weather" {
			t.Errorf("client_id %q", got)
		}
		answering(401, "", `{"error":"invalid_client"}`)(w, req)
	}))
	r.AuthMethod = SelfSignedTLSClientAuth
	r.Certificate = self.pair(t)
	_, err := r.Do(t.Context())
	const want = "invalid_client (HTTP 401); self_signed_tls_client_auth was used: check that the server knows this very client_certificate"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestUnprovenRequestsAreNotSent(t *testing.T) {
	r := newRequest(nil)
	r.AuthMethod = TLSClientAuth
	wantNotSent(t, r, "tls_client_auth needs client_certificate and client_certificate_key")
	r.Certificate = issue(t, issued{key: testKeys()["P-256"]}).pair(t)
	r.TokenURL = "http://as.example.com/token"
	wantNotSent(t, r, "tls_client_auth needs an https token_url")
}

// Control receives the address, not the name. The transport keeps its other settings.
func TestControlSeesEveryAddress(t *testing.T) {
	ca := issue(t, issued{key: testKeys()["P-256"], ca: true})
	s := mutual(t, ca, tls.VersionTLS13, tls.RequireAndVerifyClientCert, answering(200, "", goodAnswer))
	r := showing(s, ca.pair(t))
	var seen atomic.Value
	r.Control = func(_, address string, _ syscall.RawConn) error { seen.Store(address); return nil }
	if _, err := r.Do(t.Context()); err != nil || seen.Load() != s.Listener.Addr().String() {
		t.Errorf("%v, saw %v", err, seen.Load())
	}
	r.TokenURL = strings.Replace(r.TokenURL, "127.0.0.1", "localhost", 1)
	r.Control = func(_, address string, _ syscall.RawConn) error {
		return &UnavailableError{Reason: "address refused"}
	}
	wantFailure(t, r, "address refused")
}

func TestParseClientCertificate(t *testing.T) {
	root := issue(t, issued{key: testKeys()["P-384"], ca: true})
	leaf := issue(t, issued{key: testKeys()["P-256"], by: root})
	good := pkcs8(t, leaf.key)
	for _, tc := range []struct {
		name, cert, key, want string
	}{
		{"alone", leaf.pem, good, ""},
		{"with its chain", leaf.pem + root.pem, good, ""},
		{"key in SEC 1 form", leaf.pem, sec1(t, "P-256"), ""},
		{"another key", leaf.pem, pkcs8(t, testKeys()["RSA 2048"]), "client_certificate does not belong to the private key: write the certificate and the key of one pair"},
		{"chain first", root.pem + leaf.pem, good, "client_certificate: PEM block 2 is the certificate of the private key, but block 1 must be: put it first, then its chain"},
		{"no certificate", "", good, `client_certificate must hold a certificate in PEM form ("-----BEGIN CERTIFICATE-----"); with the vault command, client_certificate=@cert.pem reads a file`},
		{"no key", leaf.pem, "", `client_certificate_key must hold a private key in PEM form ("-----BEGIN PRIVATE KEY-----"); with the vault command, client_certificate_key=@key.pem reads a file`},
		{"both in the certificate", leaf.pem + good, good, "client_certificate: PEM block 2 is a private key, which has a field of its own, client_certificate_key"},
		{"both in the key", leaf.pem, leaf.pem + good, "client_certificate_key: PEM block 1 is a certificate, which has a field of its own, client_certificate"},
		{"swapped", good, leaf.pem, "client_certificate: PEM block 1 is a private key, which has a field of its own, client_certificate_key"},
		{"encrypted key", leaf.pem, pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), "client_certificate_key: PEM block 1 is encrypted: write the key without a passphrase, as openssl pkey -in key.pem prints it"},
		{"RSA 1024", leaf.pem, pkcs1("RSA 1024"), "client_certificate_key is an RSA key of 1024 bits: use one of 2048 to 8192"},
		{"P-224", leaf.pem, sec1(t, "P-224"), "client_certificate_key is a key on the curve P-224: use one on P-256, P-384 or P-521"},
		{"trailing garbage", leaf.pem + "x", good, "client_certificate: what follows PEM block 1 is not a certificate: remove it"},
	} {
		pair, err := ParseClientCertificate(tc.cert, tc.key)
		if got := errorText(err); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		if (pair == nil) != (err != nil) || err == nil && (!pair.Leaf.Equal(leaf.leaf) || len(pair.Certificate) != strings.Count(tc.cert, "BEGIN")) {
			t.Errorf("%s: %v", tc.name, pair)
		}
	}
}

// FuzzParseClientCertificate checks that the result is a pair for TLS, or an error that does not repeat the input.
func FuzzParseClientCertificate(f *testing.F) {
	root := issue(f, issued{key: testKeys()["P-384"], ca: true})
	leaf := issue(f, issued{key: testKeys()["P-256"], by: root})
	good := pkcs8(f, leaf.key)
	for _, cert := range []string{"", leaf.pem, leaf.pem + root.pem, root.pem + leaf.pem, leaf.pem[:100], leaf.pem + "x", good} {
		for _, key := range []string{"", good, sec1(f, "P-256"), pkcs8(f, testKeys()["Ed25519"]), pkcs1("RSA 1024"), leaf.pem} {
			f.Add(cert, key)
		}
	}
	f.Fuzz(func(t *testing.T, cert, key string) {
		pair, err := ParseClientCertificate(cert, key)
		if (pair == nil) != (err != nil) {
			t.Fatalf("%v, %v", pair, err)
		}
		if err != nil {
			wantOwnWords(t, err, "client_certificate", cert+" "+key)
			return
		}
		if signer, ok := pair.PrivateKey.(crypto.Signer); !ok || pair.Leaf == nil || !belongs(pair.Leaf, signer) || len(pair.Certificate) == 0 {
			t.Fatalf("%v", pair)
		}
	})
}

func TestParseCACert(t *testing.T) {
	one, two := selfSigned(t, time.Now().Add(time.Hour)).pem, selfSigned(t, time.Now().Add(time.Hour)).pem
	damaged := strings.Replace(one, "M", "*", 1)
	const reads = "; with the vault command, ca_cert=@ca.pem reads a file"
	const notPEM = `ca_cert must hold certificates in PEM form ("-----BEGIN CERTIFICATE-----")` + reads
	for _, tc := range []struct {
		name, in, want string
	}{
		{"one", one, ""},
		{"two", one + two, ""},
		{"a bundle's comments", "# CA one\n" + one + "\n# CA two\n=====\n" + two + "\n \n", ""},
		{"Windows line ends", strings.ReplaceAll(one, "\n", "\r\n"), ""},
		{"no final line break", strings.TrimSpace(one), ""},
		{"empty", "", notPEM},
		{"a path", "/etc/ssl/ca.pem", notPEM},
		{"base64 without lines", "MIIBszCCAVmgAwIBAgIUQ", notPEM},
		{"written-out line breaks", strings.ReplaceAll(one, "\n", `\n`), `ca_cert holds \n in letters; PEM needs real line breaks` + reads},
		{"private key", pemOf("PRIVATE KEY", []byte("x")), "ca_cert: PEM block 1 is a private key, which does not belong here: write the CA's certificate alone, and treat the key as exposed"},
		{"certificate and key", one + pemOf("EC PRIVATE KEY", []byte("x")), "ca_cert: PEM block 2 is a private key, which does not belong here: write the CA's certificate alone, and treat the key as exposed"},
		{"request", pemOf("CERTIFICATE REQUEST", []byte("x")), "ca_cert: PEM block 1 is not a certificate: only CERTIFICATE blocks belong here"},
		{"trusted certificate", pemOf("TRUSTED CERTIFICATE", []byte("x")), "ca_cert: PEM block 1 is not a certificate: only CERTIFICATE blocks belong here"},
		{"rubbish inside", pemOf("CERTIFICATE", []byte("x")), "ca_cert: PEM block 1 is not an X.509 certificate: copy the file again"},
		{"damaged first", damaged + two, "ca_cert: PEM block 1 is damaged or cut short: copy the file again"},
		{"damaged last", one + damaged, "ca_cert: PEM block 2 is damaged or cut short: copy the file again"},
		{"damaged alone", damaged, "ca_cert: PEM block 1 is damaged or cut short: copy the file again"},
		{"cut short", one + two[:len(two)/2], "ca_cert: PEM block 2 is damaged or cut short: copy the file again"},
		{"trailing words", one + "and more", "ca_cert: what follows PEM block 1 is not a certificate: remove it"},
	} {
		pool, err := ParseCACert(tc.in)
		if got := errorText(err); got != tc.want || (pool == nil) != (err != nil) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// FuzzParseCACert checks that the result is a pool, or an error with advice that does not repeat the input.
func FuzzParseCACert(f *testing.F) {
	one := selfSigned(f, time.Now().Add(time.Hour)).pem
	for _, s := range []string{"", one, one + one, "# x\n" + one, one[:100], one + "x", pemOf("PRIVATE KEY", []byte("x")), strings.ReplaceAll(one, "\n", `\n`)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pool, err := ParseCACert(s)
		if (pool == nil) != (err != nil) {
			t.Fatalf("%v, %v", pool, err)
		}
		if err == nil && pool.Equal(x509.NewCertPool()) {
			t.Fatal("an empty pool")
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "ca_cert") || len(err.Error()) > 250) {
			t.Fatal(err)
		}
	})
}

// A proxy with TLS would otherwise receive the client certificate.
func TestClientCertificateIsNotShownToAProxy(t *testing.T) {
	shown := -1
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		shown = len(req.TLS.PeerCertificates)
		w.WriteHeader(http.StatusBadGateway)
	}))
	proxy.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	proxy.StartTLS()
	defer proxy.Close()
	own := must(newTransport(&Request{AuthMethod: TLSClientAuth, Certificate: &proxy.TLS.Certificates[0]}))(t)
	for _, scheme := range []string{"https", "http"} {
		at := must(url.Parse(scheme + "://" + proxy.Listener.Addr().String()))(t)
		own.Proxy = withoutTLS(http.ProxyURL(at))
		req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, "https://as.example.com/token", nil))(t)
		resp, err := own.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
			t.Fatalf("%s: the proxy was used", scheme)
		}
		unavailable, refused := errors.AsType[*UnavailableError](err)
		if refused = refused && strings.Contains(unavailable.Reason, "https proxy"); refused != (scheme == "https") {
			t.Errorf("%s proxy: %v", scheme, err)
		}
	}
	if shown > 0 {
		t.Error("the proxy was shown the client certificate")
	}
}
