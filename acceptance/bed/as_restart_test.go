package bed

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"
)

// A restarted authorization server keeps its issuer, clients, resources, signing key and request counts.
func TestAuthorizationServerRestarts(t *testing.T) {
	as := startTestAS(t, t.TempDir())
	setResource(t, as, testResource, time.Minute)
	client := Client{ID: "basic", Secret: "s3cret-of-this-test", AuthMethod: "client_secret_post"}
	OK(t, as.SetClient(t.Context(), client))
	issuer := as.Issuer
	keys := Must(fetchKeys(t.Context(), as.Issuer+"/jwks"))(t)
	ask := func() int {
		return post(t, http.DefaultClient, as.TokenURL(), url.Values{"client_id": {client.ID}, "client_secret": {client.Secret}})
	}
	if got := ask(); got != http.StatusOK {
		t.Fatalf("before the restart: status %d", got)
	}
	for i := range 200 { // enough that registering them takes a while
		OK(t, as.SetClient(t.Context(), Client{ID: fmt.Sprint("other-", i), Secret: client.Secret}))
	}
	begun, endpoint, restarted := time.Now(), as.TokenURL(), make(chan error, 1)
	go func() { restarted <- as.Restart(t.Context(), 0) }()
	for running := true; running; {
		select {
		case err := <-restarted:
			running = false
			OK(t, err)
		default:
			form := url.Values{"grant_type": {"client_credentials"}, "resource": {testResource}, "client_id": {client.ID}, "client_secret": {client.Secret}}
			response, err := http.PostForm(endpoint, form)
			if err != nil {
				continue // during the restart
			}
			if response.Body.Close(); response.StatusCode != http.StatusOK {
				t.Errorf("during the restart: status %d", response.StatusCode)
			}
		}
	}
	if as.Issuer != issuer {
		t.Errorf("the issuer was %s and is %s", issuer, as.Issuer)
	}
	if got := ask(); got != http.StatusOK {
		t.Errorf("after the restart: status %d", got)
	}
	now := Must(fetchKeys(t.Context(), as.Issuer+"/jwks"))(t)
	if now.Keys[0].KeyID != keys.Keys[0].KeyID || !reflect.DeepEqual(now.Keys[0].Key, keys.Keys[0].Key) {
		t.Error("the signing key has changed")
	}
	requests := Must(as.Requests(t.Context(), client.ID))(t)
	if len(requests) < 2 || requests[0].Time.After(begun) {
		t.Errorf("%d token requests, want the ones before and after the restart", len(requests))
	}
}
