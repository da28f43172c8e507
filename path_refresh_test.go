package mcpoauth

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestRefreshReplacesTheRejectedToken(t *testing.T) {
	for _, test := range []struct {
		name  string
		named bool
	}{
		{"named", true},
		{"whichever it is", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.configure(as, nil)
			m.stash(weather, "t0ken-rejected", time.Minute, time.Hour)
			data := fields{}
			if test.named {
				data["token_id"] = m.read("token/weather")["token_id"]
			}
			got := m.refresh("weather", data)
			held := m.read("token/weather")
			sameFields(t, got, fields{"token_id": firstToken, "refreshed": true, "expires_at": held["expires_at"]})
			if held["token_id"] != firstToken {
				t.Errorf("the token held is %q; want the new one", held["token_id"])
			}
			instant(t, got, "expires_at")
		})
	}
}

func TestRefreshOfARole(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	m.stash(weather, "t0ken-config", time.Minute, time.Hour)
	m.stash(reader, "t0ken-rejected", time.Minute, time.Hour)
	if got := m.refresh("weather/reader", nil); got["refreshed"] != true {
		t.Errorf("the answer is %v", got)
	}
	if got := as.await(1).form.Get("scope"); got != "read" {
		t.Errorf("the request is for %q; want the role's scope", got)
	}
	m.holds("weather", "t0ken-config")
}

// Another broker was quicker: this one gets the new token's id, and no fetch.
func TestRefreshOfATokenThatIsHeldNoMore(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.stash(weather, "t0ken-held", time.Minute, time.Hour)
	held := m.read("token/weather")
	got := m.refresh("weather", fields{"token_id": "0123456789abcdef"})
	sameFields(t, got, fields{"token_id": held["token_id"], "refreshed": false, "expires_at": held["expires_at"]})
	as.asked(t, 0, "after the refresh of a token that is not held")
}

func TestRefreshWithinTheCooldownFetchesNothing(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	for _, data := range []fields{{}, {"token_id": firstToken}} {
		if got := m.refresh("weather", data); got["refreshed"] != false || got["token_id"] != firstToken {
			t.Errorf("the answer to %v is %v", data, got)
		}
	}
	as.asked(t, 1, "after refreshes of a young token")
}

// An answer without a new token says why there is none.
func TestRefreshThatReplacesNothingSaysWhy(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	why := func(data fields) string {
		t.Helper()
		resp, err := m.do(logical.UpdateOperation, "refresh/weather", data)
		if err != nil || resp.Data["refreshed"] != false || len(resp.Warnings) != 1 {
			t.Fatalf("%+v %v", resp, err)
		}
		return resp.Warnings[0]
	}
	m.stash(weather, "t0ken-held", time.Minute, time.Hour)
	held := m.read("token/weather")["token_id"]
	if got := why(fields{"token_id": "0123456789abcdef"}); !strings.Contains(got, "another token is held") {
		t.Error(got)
	}
	as.answers(granting(fields{"access_token": "t0ken-held", "expires_in": 3540}))
	for range 2 { // the second time nobody is asked
		if got := why(fields{"token_id": held}); !strings.Contains(got, "handed out the same token again") {
			t.Error(got)
		}
	}
	as.asked(t, 1, "after refreshes that got the same token")
	resp, err := m.do(logical.UpdateOperation, "refresh/weather", fields{"token_id": "0123456789abcdef"})
	if err != nil || len(resp.Warnings) != 1 {
		t.Errorf("%+v %v", resp, err)
	}

	m.write("config/young", as.client())
	for _, data := range []fields{nil, {"token_id": m.read("token/young")["token_id"]}} {
		resp, err := m.do(logical.UpdateOperation, "refresh/young", data)
		if err != nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "less than 10 s") {
			t.Errorf("%+v %v", resp, err)
		}
	}
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	m.stash(reader, "t0ken-old", time.Minute, time.Hour)
	as.answers(granting(fields{"access_token": "t0ken-new", "expires_in": 3600}))
	if resp, err := m.do(logical.UpdateOperation, "refresh/weather/reader", nil); err != nil || resp.Data["refreshed"] != true || resp.Warnings != nil {
		t.Errorf("%+v %v", resp, err)
	}
}

func TestRefreshOfNothingObtainsAToken(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	if got := m.refresh("weather", nil); got["refreshed"] != true || got["token_id"] != firstToken {
		t.Errorf("the answer is %v", got)
	}
}

func TestBrokersThatSeeOneRejectionCostOneRequest(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.stash(weather, "t0ken-rejected", time.Minute, time.Hour)
	rejected := m.read("token/weather")["token_id"]
	as.hold()
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			resp, err := m.do(logical.UpdateOperation, "refresh/weather", fields{"token_id": rejected})
			if err != nil || resp.Data["token_id"] != firstToken {
				t.Errorf("a broker got %v, %v; want the new token's id", resp, err)
			}
		})
	}
	as.await(1)
	m.holds("weather", "t0ken-rejected")
	as.release()
	group.Wait()
	as.asked(t, 1, "after 50 brokers' refreshes")
}

func TestRefreshThatIsRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.stash(weather, "t0ken-held", time.Minute, time.Hour)
	m.refused(http.StatusNotFound, logical.UpdateOperation, "refresh/absent", nil, "write config/absent")
	m.refused(http.StatusNotFound, logical.UpdateOperation, "refresh/weather/absent", nil, "role/weather/absent")
	// To Vault's required_parameters a null and an empty text are given, too.
	for _, id := range []any{nil, "", "0123", "0123456789ABCDEF", "t0ken-held", "0123456789abcdef0"} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "refresh/weather", fields{"token_id": id}, "16 hexadecimal digits")
	}
	as.asked(t, 0, "after refused refreshes")

	as.answers(refusing(401, "invalid_client"))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "refresh/weather", nil, "invalid_client")
	m.holds("weather", "t0ken-held")
	for _, op := range []logical.Operation{logical.ReadOperation, logical.DeleteOperation, logical.ListOperation} {
		if _, err := m.do(op, "refresh/weather", nil); err != logical.ErrUnsupportedOperation {
			t.Errorf("%s: %v; want logical.ErrUnsupportedOperation", op, err)
		}
	}
}
