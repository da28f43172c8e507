package bed

import (
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"
)

// A restarted authorization server is the one that it was: the same issuer, clients and resources,
// the same signing key, and a count of requests that goes on.
func TestAuthorizationServerRestarts(t *testing.T) {
	as := startTestAS(t, t.TempDir())
	setResource(t, as, testResource, time.Minute)
	client := Client{ID: "basic", Secret: "s3cret-of-this-test", AuthMethod: "client_secret_post"}
	if err := as.SetClient(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	issuer := as.Issuer
	keys, err := fetchKeys(t.Context(), as.Issuer+"/jwks")
	if err != nil {
		t.Fatal(err)
	}
	ask := func() int {
		return post(t, http.DefaultClient, as.TokenURL(), url.Values{"client_id": {client.ID}, "client_secret": {client.Secret}})
	}
	if got := ask(); got != http.StatusOK {
		t.Fatalf("before the restart: status %d", got)
	}
	if err := as.Restart(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if as.Issuer != issuer {
		t.Errorf("the issuer was %s and is %s", issuer, as.Issuer)
	}
	if got := ask(); got != http.StatusOK {
		t.Errorf("after the restart: status %d", got)
	}
	now, err := fetchKeys(t.Context(), as.Issuer+"/jwks")
	if err != nil {
		t.Fatal(err)
	}
	if now.Keys[0].KeyID != keys.Keys[0].KeyID || !reflect.DeepEqual(now.Keys[0].Key, keys.Keys[0].Key) {
		t.Error("the signing key is another one")
	}
	requests, err := as.Requests(t.Context(), client.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(requests) != 2 {
		t.Errorf("%d token requests, want 2", len(requests))
	}
}
