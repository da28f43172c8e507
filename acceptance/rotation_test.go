package acceptance

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The client secret changes at the authorization server and then in the config, while readers read both tokens. All
// reads return valid tokens, and both tokens are refreshed before their end.
func TestSecretRotationLeavesNoGap(t *testing.T) {
	t.Parallel()
	r := newRotation(t)
	r.rotate(t)
	r.write(t)
	r.check(t)
	for _, request := range r.requests(t) {
		if request.Status != http.StatusOK {
			t.Errorf("the authorization server answered a token request with %d %s", request.Status, request.Error)
		}
	}
}

// The operator is late: refreshes with the old secret are refused before the write. While the old tokens are valid,
// reads succeed. The write clears the backoff.
func TestLateSecretRotationLeavesNoGap(t *testing.T) {
	t.Parallel()
	r := newRotation(t)
	r.rotate(t)
	bed.Until(t, rotationLifetime, "a refused refresh of each token", func() bool { return refused(r.requests(t)) >= len(r.paths) })
	r.write(t)
	r.check(t)
}

const rotationLifetime = 20 * time.Second

// A rotation changes the client secret of a config with a role, while both tokens are read.
type rotation struct {
	*upstream
	paths   []string
	before  map[string]*bed.Token // by path
	readers *readers
	written time.Time // when the config got the new secret
}

func newRotation(t *testing.T) *rotation {
	t.Helper()
	u := newConfigured(t, shared(t), "", rotationLifetime)
	u.write(t, "role/"+u.name+"/reader", map[string]any{"scopes": "tools:list"})
	r := &rotation{
		upstream: u,
		paths:    []string{"token/" + u.name, "token/" + u.name + "/reader"},
		before:   make(map[string]*bed.Token),
	}
	r.readers = startReaders(t, u, r.paths...)
	for _, path := range r.paths {
		r.before[path] = u.token(t, path)
	}
	return r
}

// rotate changes the secret at the authorization server, which then refuses the old one.
func (r *rotation) rotate(t *testing.T) {
	t.Helper()
	r.client.Secret = newSecret()
	r.setClient(t)
}

func (r *rotation) write(t *testing.T) {
	t.Helper()
	r.upstream.write(t, "config/"+r.name, map[string]any{"client_secret": r.client.Secret})
	r.written = time.Now()
}

// check waits until both tokens are new and the old ones have expired, and checks that no read failed.
func (r *rotation) check(t *testing.T) {
	t.Helper()
	for _, path := range r.paths {
		bed.Until(t, rotationLifetime, "another token at "+path, func() bool { return r.readers.tokenID(path) != r.before[path].TokenID })
	}
	t.Logf("both tokens were refreshed within %s", time.Since(r.written).Round(time.Millisecond))
	for _, path := range r.paths {
		select {
		case <-time.After(time.Until(r.before[path].ExpiresAt.Add(time.Second))):
		case <-t.Context().Done():
		}
	}
	r.readers.check(t)
}

// A write with a wrong secret fails with the authorization server's error, and changes nothing.
func TestWrongSecretChangesNothing(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	config, token := u.read(t, "config/"+u.name), u.token(t, "token/"+u.name)

	wrong := newSecret()
	u.bed.Secrecy.AddClientSecret(u.client.ID, wrong)
	for _, text := range []string{"invalid_client", u.name} {
		u.refuse(t, "config/"+u.name, map[string]any{"client_secret": wrong}, http.StatusBadRequest, text)
	}
	if after := u.read(t, "config/"+u.name); !reflect.DeepEqual(after, config) {
		t.Errorf("the config changed from %v to %v", config, after)
	}
	u.wantToken(t, "token/"+u.name, token)
	if _, shown := config["client_secret"]; shown {
		t.Error("a read of the config returns the client secret")
	}
	if requests := u.requests(t); len(requests) != 3 || refused(requests) != 2 {
		t.Errorf("token requests %+v, want one with the right secret and two with the wrong", requests)
	}
}
