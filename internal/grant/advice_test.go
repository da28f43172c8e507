package grant

import (
	"net/http"
	"strings"
	"testing"
)

// Depending on code and status, an error names the values sent and the fields to change.
func TestAdviceFits(t *testing.T) {
	signing := func(r *request) {
		k := key(t, "RSA 2048")
		k.ID = "key-1"
		r.AuthMethod = PrivateKeyJWT
		r.Assertion = &Assertion{Key: k, Audience: "https://as.example.com", Type: TypeClientAuthentication}
	}
	certificate := issue(t, issued{key: testKeys()["P-256"]}).pair(t)
	for _, tc := range []struct {
		name   string
		change func(*request)
		status int
		body   string
		want   string
		not    string
	}{
		{"scope", func(r *request) { r.Scopes = []string{"openid", "files:read"} }, 400, `{"error":"invalid_scope"}`, `the scopes asked for were "openid files:read": write others with scopes=`, "resource"},
		{"no scope", nil, 400, `{"error":"invalid_scope"}`, "no scope was asked for: write scopes=", ""},
		{"target", func(r *request) { r.Resources = []string{"https://f.example.com/mcp"} }, 400, `{"error":"invalid_target"}`, `the resource "https://f.example.com/mcp" and no audience were sent: write resource= or audience= as the authorization server knows the MCP server, or omit_resource=true`, "scopes="},
		{"no target", nil, 400, `{"error":"invalid_target"}`, "no resource and no audience were sent: write resource= or audience=", "omit_resource"},
		{"audience", func(r *request) { r.Audience = "https://api" }, 400, `{"error":"invalid_target"}`, `no resource and the audience "https://api" were sent`, ""},
		{"Entra's resource", func(r *request) { r.Resources, r.Scopes = []string{"https://f"}, []string{"api://x/.default"} }, 400, `{"error":"invalid_request","error_description":"AADSTS9010010: The resource"}`, "omit_resource=true", ""},
		{"Entra's scope beside it", func(r *request) { r.Scopes = []string{"api://x/.default"} }, 400, `{"error":"invalid_target","error_description":"AADSTS9010010: The resource"}`, `"api://x/.default"`, ""},
		{"Entra's unknown resource", nil, 400, `{"error":"invalid_resource","error_description":"AADSTS500011: The resource principal"}`, "write resource= or audience=", ""},
		{"Auth0 without an audience", nil, 403, `{"error":"access_denied","error_description":"No audience parameter was provided, and no default audience has been configured"}`, "audience=", "scopes="},
		{"denied", func(r *request) { r.Scopes = []string{"admin"} }, 400, `{"error":"access_denied"}`, `the scopes asked for were "admin"`, ""},
		{"basic", func(r *request) { r.ClientSecret = "plain" }, 401, `{"error":"invalid_client"}`, "client_secret_basic was used: check client_id and client_secret, or write token_endpoint_auth_method=client_secret_post", "raw_basic_auth"},
		{"basic, encoded", nil, 401, `{"error":"invalid_client"}`, "were sent encoded: raw_basic_auth=true sends them as they are", ""},
		{"basic, raw", func(r *request) { r.RawBasicAuth = true }, 401, `{"error":"invalid_client"}`, "were sent as they are: raw_basic_auth=false sends them encoded", ""},
		{"basic, an id that is encoded", func(r *request) { r.ClientID, r.ClientSecret = "a/b", "plain" }, 400, `{"error":"invalid_client"}`, "raw_basic_auth=true", ""},
		{"post", func(r *request) { r.AuthMethod = ClientSecretPost }, 401, `{"error":"invalid_client"}`, "client_secret_post was used: check client_id and client_secret, or write token_endpoint_auth_method=client_secret_basic", "raw_basic_auth"},
		{"Keycloak's wrong secret", nil, 401, `{"error":"unauthorized_client"}`, "client_secret_basic was used", "grant"},
		{"Auth0's wrong secret", nil, 401, `{"error":"access_denied","error_description":"Unauthorized"}`, "client_secret_basic was used", "scopes="},
		{"401 without a code", nil, 401, ``, "client_secret_basic was used", ""},
		{"no such grant", nil, 400, `{"error":"unauthorized_client"}`, "allowed the client credentials grant", "client_secret_basic"},
		{"no such grant either", nil, 400, `{"error":"unsupported_grant_type"}`, "allowed the client credentials grant", ""},
		{"assertion", signing, 401, `{"error":"invalid_client"}`, `private_key_jwt was used: the assertion had aud "https://as.example.com", typ client-authentication+jwt, alg RS256 and kid "key-1": check that the server knows the public key, and assertion_audience=, assertion_type=, signing_alg= and key_id=`, ""},
		{"assertion without kid", func(r *request) { signing(r); r.Assertion.Key.ID = "" }, 400, `{"error":"invalid_grant","error_description":"JWT has expired"}`, "typ client-authentication+jwt, alg RS256 and no kid", ""},
		{"assertion of the wrong audience", signing, 400, `{"error":"invalid_request","error_description":"client_assertion audience is wrong"}`, "assertion_audience=", "write resource="},
		{"DPoP", nil, 400, `{"error":"invalid_dpop_proof"}`, "bearer tokens: turn DPoP off", ""},
		{"DPoP in words", nil, 400, `{"error":"invalid_request","error_description":"DPoP proof is missing"}`, "bearer tokens: turn DPoP off", ""},
		{"Keycloak's bound tokens", nil, 400, `{"error":"invalid_request","error_description":"Client Certification missing for MTLS HoK Token Binding"}`, "bearer tokens: turn certificate-bound access tokens off", ""},
		{"oidc-provider's bound tokens", nil, 400, `{"error":"invalid_request","error_description":"mutual TLS client certificate not provided"}`, "bearer tokens: turn certificate-bound access tokens off", ""},
		{"a certificate that is not taken", func(r *request) { r.AuthMethod, r.Certificate = TLSClientAuth, certificate }, 401, `{"error":"invalid_client","error_description":"mutual TLS client certificate not provided"}`, "tls_client_auth was used", "bearer tokens"},
		{"gateway", nil, 401, `{"message":"No API key found in request"}`, "extra_headers=", "client_secret"},
		{"Entra's missing scope", nil, 400, `{"error":"invalid_request","error_description":"AADSTS900144: The request body must contain the following parameter: 'scope'."}`, "no scope was asked for: write scopes=", ""},
		{"OpenIddict's scope", func(r *request) { r.Scopes = []string{"a"} }, 400, `{"error":"invalid_request","error_description":"The specified 'scope' is invalid."}`, `"a"`, "resource"},
		{"Entra's v2 and a resource", nil, 400, `{"error":"invalid_request","error_description":"AADSTS901002: The 'resource' request parameter is not supported."}`, "write resource= or audience=", "scopes="},
		{"Keycloak's two resources", func(r *request) { r.Resources = []string{"https://a", "https://b"} }, 400, `{"error":"invalid_request","error_description":"duplicated parameter"}`, `"https://a https://b"`, ""},
		{"Hydra's words are about no resource", nil, 400, `{"error":"invalid_grant","error_description":"The provided grant (e.g., resource owner credentials) is invalid"}`, "", ""},
		{"client_id in the body", nil, 400, `{"error":"invalid_request","error_description":"Missing form parameter: client_id"}`, "token_endpoint_auth_method=client_secret_post", ""},
		{"Salesforce's client_id", nil, 400, `{"error":"invalid_client_id","error_description":"client identifier invalid"}`, "client_secret_basic was used", ""},
		{"Slack's client_id", nil, 200, `{"ok":false,"error":"invalid_client_id"}`, "client_secret_basic was used", ""},
		{"Tyk's sentence", nil, 403, `{"error":"Client authentication failed"}`, "client_secret_basic was used", ""},
		{"API Management's header", nil, 403, `{"message":"Missing required header Ocp-Apim-Subscription-Key"}`, "a gateway may want a key of its own: extra_headers=", ""},
		{"a User-Agent", nil, 403, `{"message":"Please make sure your request has a User-Agent header"}`, "a gateway may want a header of its own: extra_headers=", ""},
		{"a client that is called a key", nil, 401, `{"error":"invalid_client","error_description":"the API key is wrong"}`, "client_secret_basic was used", "extra_headers"},
		{"404", nil, 404, `{"errorCode":"E7","errorSummary":"no such server"}`, "check token_url", ""},
		{"405", nil, 405, `{"message":"GET only"}`, "no POST is accepted there: check token_url", ""},
		{"415", nil, 415, `{"message":"unsupported"}`, "no form is accepted there", ""},
		{"nothing fits", nil, 400, `{"error":"invalid_request","error_description":"tenant is missing"}`, "", ""},
		{"a resource that is long", func(r *request) { r.Resources = []string{strings.Repeat("r", 2000)} }, 400, `{"error":"invalid_target"}`, strings.Repeat("r", 200) + `…"`, strings.Repeat("r", 201)},
	} {
		r := newRequest(&network{handler: answering(tc.status, "application/json", tc.body)})
		if tc.change != nil {
			tc.change(r)
		}
		_, err := r.Do(t.Context())
		refused, ok := err.(*RefusedError)
		if !ok {
			t.Errorf("%s: %T %v", tc.name, err, err)
			continue
		}
		if !strings.Contains(refused.Advice, tc.want) || tc.want == "" && refused.Advice != "" ||
			tc.not != "" && strings.Contains(refused.Advice, tc.not) {
			t.Errorf("%s: %q, want %q, not %q", tc.name, refused.Advice, tc.want, tc.not)
		}
		if strings.Contains(err.Error(), testSecret) {
			t.Errorf("%s: the secret in %v", tc.name, err)
		}
	}
}

// The reason is found under the names and in the forms that frameworks and gateways use.
func TestReasonInOtherShapes(t *testing.T) {
	for body, want := range map[string]string{
		`{"httpCode":"400","httpMessage":"Bad Request","moreInformation":"Client id not registered."}`:                       "Client id not registered.",
		`{"messageId":"CSIAQ0155E","messageDescription":"The request is invalid."}`:                                          "CSIAQ0155E: The request is invalid.",
		`{"responseCode":"4001","responseMessage":"Invalid client"}`:                                                         "4001: Invalid client",
		`{"error":{"code":"Request_BadRequest","message":{"lang":"en","value":"Invalid value"}}}`:                            "Request_BadRequest: Invalid value",
		`{"errorMessages":["The value is wrong"],"errors":{}}`:                                                               "The value is wrong",
		`{"statusCode":400,"message":["client_id must be a string","x"]}`:                                                    "client_id must be a string",
		`{"result":{"error":"invalid_client","message":"Invalid client"}}`:                                                   "invalid_client: Invalid client",
		`{"client_id":["This field is required."]}`:                                                                          "client_id: This field is required.",
		`{"title":"One or more validation errors occurred.","status":400,"errors":{"grant_type":["It is required."]}}`:       "grant_type: It is required.",
		`{"code":"INVALID_REQUEST","message":"It could not be completed.","details":[{"message":"grant type not enabled"}]}`: "INVALID_REQUEST: It could not be completed: grant type not enabled",
		`{"errorCode":"E1","errorSummary":"Api validation failed","errorCauses":[{"errorSummary":"it is blank"}]}`:           "E1: Api validation failed: it is blank",
		`{"error":"invalid_scope","error_verbose":"The scope is invalid","error_hint":"scope x is not allowed"}`:             "invalid_scope: scope x is not allowed",
		`{"error":["invalid_client"]}`: "invalid_client (",
		`{"message":"invalid_client"}`: "invalid_client (",
		`"invalid client"`:             "invalid client",
		`["invalid client"]`:           "invalid client",
	} {
		_, err := newRequest(&network{handler: answering(400, "application/json", body)}).Do(t.Context())
		refused, ok := err.(*RefusedError)
		if !ok || !strings.HasPrefix(strings.TrimPrefix(refused.Error(), "refused without an OAuth error code: "), want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}

// If the body contains no error, the error in the challenge counts.
func TestReasonInTheHeader(t *testing.T) {
	for challenge, want := range map[string]string{
		`Basic realm="x"`: "",
		`Bearer realm="x", error="invalid_client", error_description="no, such client"`: "invalid_client: no, such client",
		`Bearer error=invalid_client`:           "invalid_client",
		`Bearer error_description="only words"`: "refused without an OAuth error code: only words",
	} {
		for _, body := range []string{"", "<html>"} {
			r := newRequest(&network{handler: func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("WWW-Authenticate", challenge)
				answering(401, "text/html", body)(w, req)
			}})
			if want == "" {
				want = "refused without an OAuth error code"
			}
			if _, err := r.Do(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want+" (HTTP 401)") {
				t.Errorf("%s: %v, want %s", challenge, err, want)
			}
		}
	}
}
