package grant

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"

// The token ends at the earliest time stated by the answer or the token, under any name.
func TestEarliestStatedEndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		at := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
		jwt := func(exp any) string { return unsignedJWT(t, map[string]any{"iat": now.Unix(), "exp": exp}) }
		for _, tc := range []struct {
			name, token, fields string
			want                time.Duration // 0: not stated
		}{
			{"nothing", "t", ``, 0},
			{"JWT alone", jwt(now.Unix() + 20), ``, 20 * time.Second},
			{"JWT for a day", jwt(now.Unix() + 86400), ``, 24 * time.Hour},
			{"JWT before expires_in", jwt(now.Unix() + 20), `"expires_in":3600`, 20 * time.Second},
			{"expires_in before JWT", jwt(now.Unix() + 3600), `"expires_in":20`, 20 * time.Second},
			{"JWT with a fraction", jwt(float64(now.Unix()) + 20.5), ``, 20500 * time.Millisecond},
			{"JWT in milliseconds", jwt(now.UnixMilli() + 20000), ``, 20 * time.Second},
			{"JWT as a string", jwt(at(20 * time.Second)), ``, 20 * time.Second},
			{"JWT with exp 0", jwt(0), `"expires_in":60`, time.Minute},
			{"JWT with exp null", jwt(nil), `"expires_in":60`, time.Minute},
			{"JWT with a negative exp", jwt(-1), ``, 0},
			{"JWT with a useless exp", jwt("soon"), `"expires_in":60`, time.Minute},
			{"JWT for a century", jwt(now.Unix() + 100*365*86400), ``, maxDuration},
			{"not quite a JWT", "eyJhbGciOiJSUzI1NiJ9.e30", `"expires_in":60`, time.Minute},

			{"expires_on", "t", `"expires_on":` + at(time.Minute), time.Minute},
			{"expires_on as a string", "t", `"expires_on":"` + at(time.Minute) + `"`, time.Minute},
			{"expires_on in seconds", "t", `"expires_on":60`, time.Minute},
			{"expires_at", "t", `"expires_at":"` + now.Add(time.Minute).UTC().Format(time.RFC3339) + `"`, time.Minute},
			{"expires_at with an offset", "t", `"expires_at":"` + now.Add(time.Minute).In(time.FixedZone("", 7200)).Format(time.RFC3339Nano) + `"`, time.Minute},
			{"expires_at without a zone", "t", `"expires_at":"` + now.Add(time.Minute).UTC().Format("2006-01-02 15:04:05") + `"`, time.Minute},
			{"expires_at in a zone that is unknown", "t", `"expires_at":"Mon, 02 Jan 2006 15:04:05 XYZ"`, 0},
			{"expiresAt in milliseconds", "t", fmt.Sprintf(`"expiresAt":%d`, now.Add(time.Minute).UnixMilli()), time.Minute},
			{"expires as an HTTP date", "t", `"expires":"` + now.Add(time.Minute).UTC().Format(httpDate) + `"`, time.Minute},
			{"expires in seconds", "t", `"expires":60`, time.Minute},
			{"expires_in as a time", "t", `"expires_in":` + at(time.Minute), time.Minute},
			{"expires_in as a date", "t", `"expires_in":"` + now.Add(time.Minute).UTC().Format(time.RFC3339) + `"`, time.Minute},
			{"expires_in as a duration", "t", `"expires_in":"60s"`, time.Minute},
			{"expires_in_sec", "t", `"expires_in":3600000,"expires_in_sec":3600`, time.Hour},
			{"expiresInSeconds", "t", `"expiresInSeconds":60`, time.Minute},
			{"expires_in_ms", "t", `"expires_in_ms":60000`, time.Minute},
			{"expire_in", "t", `"expire_in":60`, time.Minute},
			{"expiration", "t", `"expiration":` + at(time.Minute), time.Minute},
			{"expiry", "t", `"expiry":"` + now.Add(time.Minute).UTC().Format(time.RFC3339) + `"`, time.Minute},
			{"access_token_expires_in", "t", `"access_token_expires_in":60`, time.Minute},
			{"expireTime", "t", `"expireTime":"` + now.Add(time.Minute).UTC().Format(time.RFC3339) + `"`, time.Minute},
			{"several", "t", `"expires_in":3600,"expires_on":` + at(time.Minute) + `,"expires":600`, time.Minute},
			{"negative beside one that says", "t", `"expires_in":-1,"expires_on":` + at(time.Minute), time.Minute},
			{"another negative", "t", `"expires_at":-1`, 0},
			{"zero", "t", `"expires_on":"0"`, 0},
			{"rubbish beside", "t", `"expires_in":60,"expires_at":"never","expires":{}`, time.Minute},
			{"50 years", "t", `"expires_in":1576797207`, maxDuration},

			{"expires_in in ISO 8601", "t", `"expires_in":"PT1H30M"`, 90 * time.Minute},
			{"expires_in of a day and more in ISO 8601", "t", `"expires_in":"P1DT12H"`, 36 * time.Hour},
			{"expires_in as .NET's TimeSpan", "t", `"expires_in":"01:00:00"`, time.Hour},
			{"expires_in as .NET's TimeSpan of days", "t", `"expires_in":"7.00:00:00"`, 7 * 24 * time.Hour},
			{"expires_in with its unit", "t", `"expires_in":"3600 seconds"`, time.Hour},
			{"expiresIn with several units", "t", `"expiresIn":"1h 30m"`, 90 * time.Minute},
			{"a negative duration", "t", `"expires_in":"-60s"`, 0},
			{"a false expires_in", "t", `"expires_in":false,"expires_at":"None"`, 0},
			{"expires_in_minutes", "t", `"expires_in_minutes":30`, 30 * time.Minute},
			{"validity_period", "t", `"validityPeriod":3600`, time.Hour},
			{"valid_for", "t", `"valid_for":3600`, time.Hour},
			{"valid_until", "t", `"valid_until":` + at(time.Minute), time.Minute},
			{"ttl", "t", `"ttl":600`, 10 * time.Minute},
			{"lifetime", "t", `"token_lifetime":600`, 10 * time.Minute},
			{"expires_at in microseconds", "t", fmt.Sprintf(`"expires_at":%d`, now.Add(time.Minute).UnixMicro()), time.Minute},
			{"expires_at in nanoseconds", "t", fmt.Sprintf(`"expires_at":%d`, now.Add(time.Minute).UnixNano()), time.Minute},
			{"expires_at at the end of 9999 in milliseconds", "t", `"expires_at":253402300799999`, maxDuration},
			{"expires_at as .NET's date", "t", fmt.Sprintf(`"expires_at":"\\/Date(%d+0200)\\/"`, now.Add(time.Minute).UnixMilli()), time.Minute},
			{"expires_at as Go prints it", "t", `"expires_at":"` + now.Add(time.Minute).UTC().String() + `"`, time.Minute},
			{"expires_at as Java prints it", "t", `"expires_at":"` + now.Add(time.Minute).UTC().Format(time.UnixDate) + `"`, time.Minute},
			{"expires_at without separators", "t", `"expires_at":"` + now.Add(time.Minute).UTC().Format("20060102T150405Z") + `"`, time.Minute},
			{"expires_at without seconds", "t", `"expires_at":"` + now.Add(time.Minute).UTC().Format("2006-01-02T15:04Z") + `"`, time.Minute},
			{"the zero time", "t", `"expires_in":60,"expires_at":"0001-01-01T00:00:00Z"`, time.Minute},
			{"the epoch", "t", `"expires_at":"1970-01-01T00:00:00Z"`, 0},
			{"a local time west of UTC", "t", `"expires_in":60,"expires_at":"` + now.Add(-4*time.Hour).UTC().Format("2006-01-02T15:04:05") + `"`, time.Minute},

			{"the refresh token's", "t", `"refresh_expires_in":30,"refresh_token_expires_in":30,"refreshTokenExpiresAt":30`, 0},
			{"Entra's for outages", "t", `"ext_expires_in":30`, 0},
			{"the id token's", "t", `"id_token_expires_in":30`, 0},
			{"not_before", "t", `"not-before-policy":0,"not_before":` + at(0), 0},
		} {
			body := `{"access_token":"` + tc.token + `"`
			if tc.fields != "" {
				body += "," + tc.fields
			}
			token, err := newRequest(&network{handler: answering(200, "application/json", body+"}")}).Do(t.Context())
			if err != nil || token.ExpiresIn != tc.want {
				t.Errorf("%s: %+v, %v, want %v", tc.name, token, err, tc.want)
			}
		}
	})
}

func TestEndedTokensAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		ended := now.Add(-time.Second)
		for name, body := range map[string]string{
			"JWT":                  `{"access_token":"` + unsignedJWT(t, map[string]any{"exp": ended.Unix()}) + `","expires_in":3600}`,
			"JWT, on the second":   `{"access_token":"` + unsignedJWT(t, map[string]any{"exp": now.Unix()}) + `","expires_in":3600}`,
			"JWT of 1970":          `{"access_token":"` + unsignedJWT(t, map[string]any{"exp": 1}) + `"}`,
			"expires_on":           fmt.Sprintf(`{"access_token":"t","expires_in":3600,"expires_on":%d}`, ended.Unix()),
			"expires_at, a date":   `{"access_token":"t","expires_at":"` + ended.UTC().Format(time.RFC3339) + `"}`,
			"a local time, a day":  `{"access_token":"t","expires_in":3600,"expires_at":"` + now.Add(-24*time.Hour).UTC().Format("2006-01-02T15:04:05") + `"}`,
			"form":                 fmt.Sprintf("access_token=t&expires_on=%d", ended.Unix()),
			"expires_in as a date": `{"access_token":"t","expires_in":"` + ended.UTC().Format(time.RFC3339) + `"}`,
		} {
			token, err := newRequest(&network{handler: answering(200, "", body)}).Do(t.Context())
			unavailable, ok := err.(*UnavailableError)
			if token != nil || !ok || !strings.Contains(unavailable.Reason, "has expired already") || ClientWide(err) {
				t.Errorf("%s: %v, %v", name, token, err)
			}
			if strings.Contains(fmt.Sprint(err), "eyJ") {
				t.Errorf("%s: a token in %v", name, err)
			}
		}
	})
}

// A difference between the clocks neither expires a valid token nor revives an expired one.
func TestClocksApart(t *testing.T) {
	const life = 30 * time.Second
	for _, skew := range []time.Duration{-time.Hour, -time.Minute, -2 * time.Second, 0, 2 * time.Second, time.Minute, time.Hour} {
		for _, kept := range []time.Duration{0, 12 * time.Second, 29 * time.Second, 30 * time.Second, time.Minute} { // age of the token when the server grants it
			for _, fraction := range []time.Duration{0, 400 * time.Millisecond, 999 * time.Millisecond} {
				for _, took := range []time.Duration{0, 3 * time.Second} {
					synctest.Test(t, func(t *testing.T) {
						time.Sleep(24*time.Hour + fraction)
						var end time.Time // on this machine's clock
						n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
							time.Sleep(took / 2)
							server := time.Now().Add(skew)
							issued := server.Add(-kept).Truncate(time.Second)
							end = issued.Add(life).Add(-skew)
							w.Header().Set("Date", server.UTC().Format(httpDate))
							answering(200, "", `{"expires_in":30,"access_token":"`+unsignedJWT(t, map[string]any{
								"iat": issued.Unix(), "exp": issued.Add(life).Unix(),
							})+`"}`)(w, req)
							time.Sleep(took - took/2)
						}}
						begun := time.Now()
						token, err := newRequest(n).Do(t.Context())
						if err != nil {
							if end.Sub(begun) > took+2*time.Second {
								t.Errorf("skew %v, kept %v, fraction %v, took %v: refused a good token: %v", skew, kept, fraction, took, err)
							}
							return
						}
						// The engine counts from a whole second.
						until := token.RequestedAt.Round(0).Truncate(time.Second).Add(token.ExpiresIn)
						if until.After(end) || end.Sub(until) > took+2*time.Second {
							t.Errorf("skew %v, kept %v, fraction %v, took %v: ends at %v, believed until %v", skew, kept, fraction, took, end, until)
						}
					})
				}
			}
		}
	}
}

func TestClock(t *testing.T) {
	begun := time.Date(2026, 1, 2, 15, 4, 5, 600_000_000, time.UTC)
	second := begun.Truncate(time.Second)
	for _, tc := range []struct {
		name      string
		date, age string
		took      time.Duration
		server    time.Time
		apart     bool
	}{
		{"no Date", "", "", 0, second, false},
		{"a useless Date", "soon", "", 0, second, false},
		{"the same second", "Fri, 02 Jan 2026 15:04:05 GMT", "", 0, second, false},
		{"a Date that is computed once a second", "Fri, 02 Jan 2026 15:04:04 GMT", "", 0, second, false},
		{"a slow answer", "Fri, 02 Jan 2026 15:04:08 GMT", "", 4 * time.Second, second.Add(3 * time.Second), false},
		{"ahead", "Fri, 02 Jan 2026 15:04:08 GMT", "", time.Second, second.Add(3 * time.Second), true},
		{"behind", "Fri, 02 Jan 2026 15:04:03 GMT", "", time.Second, second.Add(-2 * time.Second), true},
		{"from a cache", "Fri, 02 Jan 2026 15:04:00 GMT", "5", 0, second, false},
	} {
		header := http.Header{}
		for name, value := range map[string]string{"Date": tc.date, "Age": tc.age} {
			if value != "" {
				header.Set(name, value)
			}
		}
		c := newClock(begun, begun.Add(tc.took), header)
		if !c.server.Equal(tc.server) || c.apart != tc.apart {
			t.Errorf("%s: %+v", tc.name, c)
		}
	}
}

// Without a Date header, the token's own iat shows that the server's clock is ahead.
func TestTokenIssuedInTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().Unix()
		for _, tc := range []struct {
			iat, exp int64
			want     time.Duration
		}{
			{60, 90, 30 * time.Second},
			{0, 30, 30 * time.Second},
			{-10, 20, 20 * time.Second},
			{90, 60, time.Minute}, // malformed: issued after its end
		} {
			body := `{"access_token":"` + unsignedJWT(t, map[string]any{"iat": now + tc.iat, "exp": now + tc.exp}) + `"}`
			token, err := newRequest(&network{handler: answering(200, "", body)}).Do(t.Context())
			if err != nil || token.ExpiresIn != tc.want {
				t.Errorf("%+v: %v, %v", tc, token, err)
			}
		}
	})
}

func TestParseClaims(t *testing.T) {
	for _, tc := range []struct {
		name, token string
		want        string
	}{
		{"opaque", "opaque", "no"},
		{"two parts", "eyJhbGciOiJSUzI1NiJ9.e30", "no"},
		{"encrypted", "eyJhbGciOiJSU0EifQ.a.b.c.d", "no"},
		{"no alg", "e30.e30.c2ln", "no"},
		{"a payload that is no object", "eyJhbGciOiJSUzI1NiJ9.W10.c2ln", "no"},
		{"empty", unsignedJWT(t, map[string]any{}), "[] 0 false"},
		{"one audience", unsignedJWT(t, map[string]any{"aud": "a", "exp": 1}), "[a] 1 false"},
		{"two audiences", unsignedJWT(t, map[string]any{"aud": []string{"a", "b"}}), "[a b] 0 false"},
		{"a useless audience", unsignedJWT(t, map[string]any{"aud": 7}), "[] 0 false"},
		{"bound", unsignedJWT(t, map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}), "[] 0 true"},
		{"cnf null", unsignedJWT(t, map[string]any{"cnf": nil}), "[] 0 false"},
		{"cnf empty", unsignedJWT(t, map[string]any{"cnf": map[string]any{}}), "[] 0 false"},
		{"padded", "eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ==.c2ln", "[] 0 false"},
	} {
		claims, ok := ParseClaims(tc.token)
		got := "no"
		if ok {
			exp := int64(0)
			if !claims.Expires.IsZero() {
				exp = claims.Expires.Unix()
			}
			got = fmt.Sprintf("%v %d %v", claims.Audience, exp, claims.Bound)
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
