package bed

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Secrecy knows every client secret, every private key and every access token of a run, and finds them where they
// must not be: in logs, audit logs and error texts.
type Secrecy struct {
	mu     sync.Mutex
	values map[string]string // what must not appear, to what it is
}

// A private key that no test ever saw, such as one that the plugin made, is found by its looks.
//
// Each expression begins with a literal, by which a search through many megabytes is fast.
var looksLikeKey = []*regexp.Regexp{
	regexp.MustCompile(`PRIVATE KEY-----`),
	regexp.MustCompile(`"d\\?":\s*\\?"[\w-]{40,}`), // the private part of a JWK, also as JSON within JSON
}

// Tokens of the bed's authorization server are JWTs, so that one that no test ever saw, such as
// one fetched in the background and replaced before anybody read it, is found by its looks.
var looksLikeJWT = regexp.MustCompile(`eyJ[\w-]{8,}\.eyJ[\w-]{8,}`)

// AddClientSecret makes a client secret known, with the forms that it takes on the wire.
func (s *Secrecy) AddClientSecret(clientID, secret string) {
	if secret == "" {
		return
	}
	what := "client secret of " + clientID
	escaped := url.QueryEscape(secret)
	basic := url.QueryEscape(clientID) + ":" + escaped
	quoted, _ := json.Marshal(secret) // a string always marshals
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(secret, what)
	s.add(escaped, what+", URL encoded")
	s.add(string(quoted[1:len(quoted)-1]), what+", JSON encoded")
	s.add(base64.StdEncoding.EncodeToString([]byte(basic)), what+", as a Basic header")
}

// AddPrivateKey makes a private key known: each whole line of its PEM form, however the lines are
// put together.
func (s *Secrecy) AddPrivateKey(what, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(key) {
		if line = strings.TrimSpace(line); len(line) == pemLine && !strings.HasPrefix(line, "-----") {
			s.add(line, what)
		}
	}
}

// pemLine is the length of all lines of a PEM block's body but the last.
const pemLine = 64

// AddToken makes an access token known.
func (s *Secrecy) AddToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(token, "access token")
}

// add is called with mu held.
func (s *Secrecy) add(value, what string) {
	if value == "" {
		return
	}
	if s.values == nil {
		s.values = make(map[string]string)
	}
	if _, known := s.values[value]; !known {
		s.values[value] = what
	}
}

// A ScanReport tells what a scan covered and what it found.
type ScanReport struct {
	Files  int
	Bytes  int64
	Values int      // how many values were looked for
	Leaks  []string // each says what was found where, and shows the line without the value itself
}

// Scan looks for all known values, and for anything that looks like a JWT, in all files below dir.
func (s *Secrecy) Scan(dir string) (ScanReport, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	report := ScanReport{Values: len(s.values)}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		report.Files++
		report.Bytes += int64(len(content))
		report.Leaks = append(report.Leaks, s.leaks(filepath.Base(path), content)...)
		return nil
	})
	return report, err
}

// ScanText looks for all known values, and for anything that looks like a JWT, in a text that the
// report calls name.
func (s *Secrecy) ScanText(name string, text []byte) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaks(name, text)
}

// leaks is called with mu held.
func (s *Secrecy) leaks(name string, content []byte) []string {
	var leaks []string
	found := func(what string, at int) {
		number := 1 + bytes.Count(content[:at], []byte("\n"))
		line, _, _ := bytes.Cut(content[1+bytes.LastIndexByte(content[:at], '\n'):], []byte("\n"))
		line = s.redact(line)
		line = line[:min(len(line), 400)]
		leaks = append(leaks, fmt.Sprintf("%s in %s, line %d: %s", what, name, number, line))
	}
	jwt := looksLikeJWT.FindIndex(content)
	if jwt != nil {
		found("a JWT", jwt[0])
	}
	for value, what := range s.values {
		// Where there is no JWT at all, none of the hundreds of known ones need be looked for.
		if jwt == nil && looksLikeJWT.MatchString(value) {
			continue
		}
		if at := bytes.Index(content, []byte(value)); at >= 0 {
			found(what, at)
		}
	}
	for _, key := range looksLikeKey {
		if at := key.FindIndex(content); at != nil {
			found("a private key", at[0])
		}
	}
	return leaks
}

// Redact replaces known values and JWTs, for output that a person is to read.
func (s *Secrecy) Redact(text []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.redact(text)
}

// redact is called with mu held.
func (s *Secrecy) redact(text []byte) []byte {
	for value, what := range s.values {
		text = bytes.ReplaceAll(text, []byte(value), []byte("["+what+"]"))
	}
	for _, key := range looksLikeKey {
		text = key.ReplaceAll(text, []byte("[a private key]"))
	}
	return looksLikeJWT.ReplaceAll(text, []byte("[a JWT]"))
}
