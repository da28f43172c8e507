package grant

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"text/template"
	"time"
)

// reportedAnswer is a row of testdata/answers.
type reportedAnswer struct {
	title, becomes string
	answer         string // a template for an HTTP response
}

// reportedAnswers reads testdata/answers.
func reportedAnswers(t testing.TB) []reportedAnswer {
	t.Helper()
	files, err := filepath.Glob("../../testdata/answers/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("no answers: %v", err)
	}
	var rows []reportedAnswer
	for _, file := range files {
		data := must(os.ReadFile(file))(t)
		for _, text := range strings.Split("\n"+string(data), "\n### ")[1:] {
			title, rest, _ := strings.Cut(text, "\n")
			row := reportedAnswer{title: title}
			var reported string
			for strings.HasPrefix(rest, "# ") {
				var line string
				line, rest, _ = strings.Cut(rest, "\n")
				name, value, _ := strings.Cut(line[2:], ": ")
				switch name {
				case "reported":
					reported = value
				case "becomes":
					row.becomes = value
				}
			}
			if !strings.HasPrefix(reported, "https://") || row.becomes == "" || !strings.HasPrefix(rest, "HTTP/1.1 ") {
				t.Fatalf("%s: %q is not a whole row", file, title)
			}
			row.answer = rest
			rows = append(rows, row)
		}
	}
	return rows
}

// response returns the row's answer with times relative to now.
func (r reportedAnswer) response(t testing.TB) *http.Response {
	t.Helper()
	now := time.Now()
	in := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second).UTC() }
	tmpl, err := template.New(r.title).Funcs(template.FuncMap{
		"epoch":  func(seconds int) int64 { return in(seconds).Unix() },
		"millis": func(seconds int) int64 { return in(seconds).UnixMilli() },
		"date":   func(layout string, seconds int) string { return in(seconds).Format(layout) },
		"jwt": func(pairs ...any) string {
			claims := map[string]any{}
			for i := 0; i < len(pairs); i += 2 {
				claims[pairs[i].(string)] = pairs[i+1]
				if seconds, ok := pairs[i+1].(int); ok {
					claims[pairs[i].(string)] = in(seconds).Unix()
				}
			}
			return unsignedJWT(t, claims)
		},
	}).Parse(r.answer)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	noError(t, tmpl.Execute(&text, nil))
	resp, err := http.ReadResponse(bufio.NewReader(&text), nil)
	if err != nil {
		t.Fatalf("%s: %v", r.title, err)
	}
	body := must(io.ReadAll(resp.Body))(t)
	resp.Body = io.NopCloser(bytes.NewReader(bytes.TrimSpace(body)))
	return resp
}

// unsignedJWT is an access token in the form of a JWT, whose signature is invalid.
func unsignedJWT(t testing.TB, claims map[string]any) string {
	t.Helper()
	payload := must(json.Marshal(claims))(t)
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","typ":"at+jwt"}`)) + "." + encode(payload) + ".c2ln"
}

func TestAnswersAsReported(t *testing.T) {
	for _, row := range reportedAnswers(t) {
		t.Run(row.title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRequest(nil)
				r.ClientSecret = "correct-horse"
				r.Scopes, r.Resources = []string{"files:read"}, []string{"https://files.example.com/mcp"}
				r.over = roundTripper(func(req *http.Request) (*http.Response, error) {
					resp := row.response(t)
					resp.Request = req
					return resp, nil
				})
				token, err := r.Do(t.Context())
				var got string
				if err != nil {
					got = err.Error()
					if unavailable, ok := err.(*UnavailableError); ok && unavailable.RetryAfter > 0 {
						got += fmt.Sprintf(", retry after %s", unavailable.RetryAfter)
					}
				} else {
					lifetime := "unsaid"
					if token.ExpiresIn > 0 {
						lifetime = token.ExpiresIn.String()
					}
					got = fmt.Sprintf("a token for %s, scope %q", lifetime, token.Scope)
				}
				if got != row.becomes {
					t.Errorf("got  %s\nwant %s", got, row.becomes)
				}
			})
		})
	}
}
