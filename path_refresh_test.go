package mcpoauth

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestRefreshReplacesTheRejectedToken(t *testing.T) {
	for _, named := range []bool{true, false} {
		_, m := newConfigured(t)
		m.stash(weather, "t0ken-rejected", time.Minute, time.Hour)
		data := fields{}
		if named {
			data["token_id"] = m.read("token/weather")["token_id"]
		}
		got := m.refresh("weather", data)
		held := m.read("token/weather")
		sameFields(t, got, fields{"token_id": firstToken, "refreshed": true, "expires_at": held["expires_at"]})
		equal(t, "the token held", held["token_id"], firstToken)
		instant(t, got, "expires_at")
	}
}

func TestRefreshOfARole(t *testing.T) {
	as, m := newConfigured(t)
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	m.stash(weather, "t0ken-config", time.Minute, time.Hour)
	m.stash(reader, "t0ken-rejected", time.Minute, time.Hour)
	equal(t, "refreshed", m.refresh("weather/reader", nil)["refreshed"], true)
	equal(t, "the scope of the request", as.await(1).form.Get("scope"), "read")
	m.holds("weather", "t0ken-config")
}

// If another broker has refreshed first, this broker gets the new token's id without a fetch.
func TestRefreshOfATokenThatIsHeldNoMore(t *testing.T) {
	as, m := newConfigured(t)
	m.stash(weather, "t0ken-held", time.Minute, time.Hour)
	held := m.read("token/weather")
	got := m.refresh("weather", fields{"token_id": "0123456789abcdef"})
	sameFields(t, got, fields{"token_id": held["token_id"], "refreshed": false, "expires_at": held["expires_at"]})
	as.asked(t, 0, "after the refresh of a token that is not held")
}

func TestRefreshWithinTheCooldownFetchesNothing(t *testing.T) {
	as, m := newConfigured(t)
	shows(t, m.refresh("weather", nil), fields{"refreshed": true, "token_id": firstToken}) // no token was held
	for _, data := range []fields{{}, {"token_id": firstToken}} {
		shows(t, m.refresh("weather", data), fields{"refreshed": false, "token_id": firstToken})
	}
	as.asked(t, 1, "after refreshes of a young token")
}

// An answer with an unchanged token gives the reason.
func TestRefreshThatReplacesNothingSaysWhy(t *testing.T) {
	as, m := newConfigured(t)
	says := func(name string, data fields, refreshed bool, why string) {
		t.Helper()
		resp := must(m.do(logical.UpdateOperation, "refresh/"+name, data))(t)
		equal(t, "refreshed", resp.Data["refreshed"], refreshed)
		warns(t, fmt.Sprintf("the refresh of %s with %v", name, data), resp.Warnings, why)
	}
	m.stash(weather, "t0ken-held", time.Minute, time.Hour)
	held := m.read("token/weather")["token_id"]
	says("weather", fields{"token_id": "0123456789abcdef"}, false, "another token is held")
	as.answers(granting(fields{"access_token": "t0ken-held", "expires_in": 3540}))
	for range 2 { // the second refresh makes no request
		says("weather", fields{"token_id": held}, false, "handed out the same token again")
	}
	as.asked(t, 1, "after refreshes that got the same token")
	says("weather", fields{"token_id": "0123456789abcdef"}, false, "another token is held")

	m.write("config/young", as.client())
	for _, data := range []fields{nil, {"token_id": m.read("token/young")["token_id"]}} {
		says("young", data, false, "less than 10 s")
	}
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	m.stash(reader, "t0ken-old", time.Minute, time.Hour)
	as.answers(granting(fields{"access_token": "t0ken-new", "expires_in": 3600}))
	says("weather/reader", nil, true, "")
}

func TestBrokersThatSeeOneRejectionCostOneRequest(t *testing.T) {
	as, m := newConfigured(t)
	m.stash(weather, "t0ken-rejected", time.Minute, time.Hour)
	rejected := m.read("token/weather")["token_id"]
	as.hold()
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			data, _ := m.succeeds(logical.UpdateOperation, "refresh/weather", fields{"token_id": rejected})
			shows(t, data, fields{"token_id": firstToken})
		})
	}
	as.await(1)
	m.holds("weather", "t0ken-rejected")
	as.release()
	group.Wait()
	as.asked(t, 1, "after 50 brokers' refreshes")
}

func TestRefreshThatIsRefused(t *testing.T) {
	as, m := newConfigured(t)
	m.stash(weather, "t0ken-held", time.Minute, time.Hour)
	m.refused(http.StatusNotFound, logical.UpdateOperation, "refresh/absent", nil, "write config/absent")
	m.refused(http.StatusNotFound, logical.UpdateOperation, "refresh/weather/absent", nil, "role/weather/absent")
	// Vault's required_parameters accept null and an empty text.
	for _, id := range []any{nil, "", "0123", "0123456789ABCDEF", "t0ken-held", "0123456789abcdef0"} {
		m.rejects("refresh/weather", fields{"token_id": id}, "16 hexadecimal digits")
	}
	as.asked(t, 0, "after refused refreshes")

	as.answers(refusing(401, "invalid_client"))
	m.rejects("refresh/weather", nil, "invalid_client")
	m.holds("weather", "t0ken-held")
}
