package bed

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Secrecy knows the client secrets, private keys and access tokens of a run, and finds them in logs, audit logs and
// error texts.
type Secrecy struct {
	mu     sync.Mutex
	values map[string]string // by secret: its description
}

// Private keys that the tests do not know, such as the plugin's own, are found by their form.
//
// Each expression begins with a literal, for a fast search.
var looksLikeKey = []*regexp.Regexp{
	regexp.MustCompile(`PRIVATE KEY-----`),
	regexp.MustCompile(`"d\\?":\s*\\?"[\w-]{40,}`), // the private part of a JWK, also as JSON within JSON
}

// Tokens are JWTs. Unknown ones, such as tokens replaced without a read, are found by their form.
var looksLikeJWT = regexp.MustCompile(`eyJ[\w-]{8,}\.eyJ[\w-]{8,}`)

// AddClientSecret registers a client secret in all forms in which requests send it.
func (s *Secrecy) AddClientSecret(clientID, secret string) {
	if secret == "" {
		return
	}
	what := "client secret of " + clientID
	escaped := url.QueryEscape(secret)
	basic := url.QueryEscape(clientID) + ":" + escaped
	quoted, _ := json.Marshal(secret) // marshalling a string cannot fail
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(secret, what)
	s.add(escaped, what+", URL encoded")
	s.add(string(quoted[1:len(quoted)-1]), what+", JSON encoded")
	s.add(base64.StdEncoding.EncodeToString([]byte(basic)), what+", as a Basic header")
}

// AddPrivateKey registers a private key: each full line of its PEM form.
func (s *Secrecy) AddPrivateKey(what, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(key) {
		if line = strings.TrimSpace(line); len(line) == pemLine && !strings.HasPrefix(line, "-----") {
			s.add(line, what)
		}
	}
}

// pemLine is the length of the full lines of a PEM block.
const pemLine = 64

// AddToken registers an access token.
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

// A ScanReport is the extent and the findings of a scan.
type ScanReport struct {
	Files  int
	Bytes  int64
	Values int      // number of values searched
	Leaks  []string // for each: kind, place, and the line without the value
}

// Scan looks for registered values and for JWTs in all files below dir.
func (s *Secrecy) Scan(dir string) (ScanReport, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	report := ScanReport{Values: len(s.values)}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		report.Files++
		leaks, n, err := s.leaks(filepath.Base(path), file)
		report.Bytes += n
		report.Leaks = append(report.Leaks, leaks...)
		return err
	})
	return report, err
}

// ScanText looks for registered values and for JWTs in a text with this name.
func (s *Secrecy) ScanText(name string, text []byte) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	leaks, _, _ := s.leaks(name, bytes.NewReader(text)) // reading from memory cannot fail
	return leaks
}

// leaks reads a log and returns the first line of each finding. mu is held.
func (s *Secrecy) leaks(name string, log io.Reader) (leaks []string, size int64, err error) {
	lines, index, found := bufio.NewReaderSize(log, 1<<20), newIndex(s.values), map[string]bool{}
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		size += int64(len(line))
		what := index.find(line)
		if looksLikeJWT.Match(line) {
			what = append(what, "a JWT")
		}
		for _, key := range looksLikeKey {
			if key.Match(line) {
				what = append(what, "a private key")
			}
		}
		for _, w := range what {
			if !found[w] {
				found[w] = true
				shown := s.redact(bytes.TrimSpace(line))
				leaks = append(leaks, fmt.Sprintf("%s in %s, line %d: %.400s", w, name, number, shown))
			}
		}
		if errors.Is(err, io.EOF) {
			return leaks, size, nil
		}
		if err != nil {
			return leaks, size, err
		}
	}
}

// index finds many values in a text in one pass, by their first bytes.
type index struct {
	values  map[string]string // by secret: its description
	begins  map[[indexed]byte][]string
	short   []string      // values shorter than indexed
	another [1 << 16]bool // set if a value begins with these two bytes
}

// indexed is the number of a value's first bytes in the index.
const indexed = 8

func newIndex(values map[string]string) *index {
	x := &index{values: values, begins: map[[indexed]byte][]string{}}
	for value := range values {
		if len(value) < indexed {
			x.short = append(x.short, value)
			continue
		}
		begin := [indexed]byte([]byte(value)[:indexed])
		x.begins[begin] = append(x.begins[begin], value)
		x.another[uint16(value[0])<<8|uint16(value[1])] = true
	}
	return x
}

// find returns the descriptions of the values in the line.
func (x *index) find(line []byte) (what []string) {
	for _, value := range x.short {
		if bytes.Contains(line, []byte(value)) {
			what = append(what, x.values[value])
		}
	}
	for i := 0; i+indexed <= len(line); i++ {
		if !x.another[uint16(line[i])<<8|uint16(line[i+1])] {
			continue
		}
		for _, value := range x.begins[[indexed]byte(line[i:i+indexed])] {
			if bytes.HasPrefix(line[i:], []byte(value)) {
				what = append(what, x.values[value])
			}
		}
	}
	return what
}

// Redact replaces registered values and JWTs.
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
