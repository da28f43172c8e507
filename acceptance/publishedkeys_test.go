package acceptance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Callers without a Vault token can read the published keys as a raw JWK Set. All other paths return the same 404, so
// they do not reveal the names of configs.
func TestPublishedKeysNeedNoVaultToken(t *testing.T) {
	t.Parallel()
	b := shared(t)
	published, private := newUpstream(t, b, "-published", 5*time.Minute), newUpstream(t, b, "-private", 5*time.Minute)
	published.write(t, "config/"+published.name, published.discovered(publishedKey("ec-p256")(t, published)))
	published.registerMadeKey(t)
	uri := published.client.JWKSURI
	private.write(t, "config/"+private.name, private.discovered(map[string]any{"key_type": "ec-p256"}))

	keys := get(t, uri)
	if keys.status != http.StatusOK || !strings.HasPrefix(keys.header.Get("Content-Type"), "application/json") ||
		!strings.Contains(keys.header.Get("Cache-Control"), "max-age=300") {
		t.Errorf("%+v, want a JWK Set that may be kept for 300 s", keys)
	}
	kid := published.kid(t)
	if body := keys.body; !strings.HasPrefix(body, `{"keys":[`) || !strings.Contains(body, kid) || strings.Contains(body, `"d"`) {
		t.Errorf("the key set is %s, want the public key %s", body, kid)
	}

	none := get(t, uri+"-not")
	wantNone := func(url string) {
		t.Helper()
		if got := get(t, url); got.status != http.StatusNotFound || got.body != none.body {
			t.Errorf("%s: status %d, %s, want the same 404 for all", url, got.status, got.body)
		}
	}
	wantNone(uri + "-not")
	wantNone(private.mountURL() + "jwks/" + private.name)
	wantNone(published.mountURL() + "jwks/" + published.name)
	published.write(t, "config/"+published.name, map[string]any{"publish_jwks": false})
	wantNone(uri)
}

// A new key signs only after authorization servers have had time to fetch it. They may keep a key set for five
// minutes.
func TestKeyRotationLeavesTimeToFetch(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	u.write(t, "config/"+u.name, u.discovered(publishedKey("ed25519")(t, u)))
	rotate := "keys/" + u.name + "/rotate"
	u.refuse(t, rotate, map[string]any{"activate_after": "299s"}, http.StatusBadRequest, "activate_after")
	if got := len(u.publicKeys(t).Keys); got != 1 {
		t.Errorf("%d keys after a refused rotation, want 1", got)
	}
	u.write(t, rotate, nil)
	keys := u.read(t, "keys/"+u.name)
	at, _ := keys["next_key_active_at"].(string)
	if when, err := time.Parse(time.RFC3339, at); err != nil || time.Until(when) < 9*time.Minute || time.Until(when) > 10*time.Minute {
		t.Errorf("next_key_active_at %q, want in 10 minutes: %v", at, err)
	}
	if got := len(u.publicKeys(t).Keys); got != 2 {
		t.Errorf("%d keys published, want the old and the new", got)
	}
}

// The signing key rotates while the authorization server fetches keys from Vault, and while readers read a 20 s token
// all the time. No read fails and no assertion is refused, because the old key signs until the server has fetched the
// new one.
//
// As Vault's answer allows, the server keeps a fetched key set for 5 minutes, so the test takes six. Its first part
// runs before t.Parallel, and so before all parallel tests; the rest runs beside them.
func TestKeyRotationLeavesNoGap(t *testing.T) {
	if testing.Short() {
		t.Skip("takes six minutes")
	}
	const activateAfter = 5 * time.Minute
	u := newUpstream(t, shared(t), "", rotationLifetime)
	u.write(t, "config/"+u.name, u.discovered(publishedKey("ec-p256")(t, u)))
	u.registerMadeKey(t)
	readers := startReaders(t, u, "token/"+u.name)
	old := u.kid(t)
	// The server has fetched the key set for the first token.
	answer := u.write(t, "keys/"+u.name+"/rotate", map[string]any{"activate_after": activateAfter.String()})
	rotated := time.Now()
	next, _ := answer.Data["key_id"].(string)
	if next == "" || next == old {
		t.Fatalf("the new key is %q, the old one %q", next, old)
	}
	checkPublished(t, u, old, next)

	t.Parallel()

	withNext := func(r bed.TokenRequest) bool { return r.Assertion.KeyID == next }
	bed.Eventually(t, time.Until(rotated.Add(activateAfter+2*rotationLifetime)), func() error {
		if n := refused(u.requests(t)); n > 0 {
			t.Fatalf("%d token requests have been refused %s after the rotation", n, time.Since(rotated).Round(time.Second))
		}
		if !slices.ContainsFunc(u.requests(t), withNext) {
			return fmt.Errorf("the new key %s has not been used", next)
		}
		return nil
	})
	// This waits for another refresh.
	first := len(u.requests(t))
	bed.Until(t, rotationLifetime, "another refresh", func() bool { return len(u.requests(t)) > first })
	readers.check(t)

	due := rotated.Add(activateAfter)
	requests := u.requests(t)
	for _, r := range requests {
		want := old
		if r.Time.After(due) {
			want = next
		}
		// The answer to the rotation may take a moment.
		if r.Status != http.StatusOK || r.Assertion.KeyID != want && r.Time.Sub(due).Abs() > time.Second {
			t.Errorf("token request %s after the rotation: status %d, %s, key %s, want %s",
				r.Time.Sub(rotated).Round(time.Millisecond), r.Status, r.Error, r.Assertion.KeyID, want)
		}
	}
	fetches := bed.Must(u.bed.AS.KeyFetches(t.Context(), u.jwksURI(t)))(t)
	used := requests[slices.IndexFunc(requests, withNext)].Time
	if len(fetches) != 2 || fetches[1].Time.Before(rotated) {
		t.Errorf("the key set was fetched %+v, want once before the rotation at %s and once after", fetches, rotated)
	}
	checkPublished(t, u, old, next)
	t.Logf("%d token requests; the new key was used %s after the rotation", len(requests), used.Sub(rotated).Round(time.Millisecond))
}

// checkPublished checks that the published key set has both keys.
func checkPublished(t *testing.T, u *upstream, kids ...string) {
	t.Helper()
	body := get(t, u.jwksURI(t)).body
	for _, kid := range kids {
		if !strings.Contains(body, `"`+kid+`"`) {
			t.Errorf("key %s is not published in %s", kid, body)
		}
	}
}

// get fetches a URL without a login.
func get(t *testing.T, url string) answer {
	t.Helper()
	return bed.Must(ask(t.Context(), url, "", nil))(t)
}
