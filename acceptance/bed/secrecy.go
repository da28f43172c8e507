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

// Secrecy knows every client secret, every private key and every access token of a run, and finds them where
// they must not be: in logs, audit logs and error texts.
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

// ScanText looks for all known values, and for anything that looks like a JWT, in a text that the
// report calls name.
func (s *Secrecy) ScanText(name string, text []byte) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	leaks, _, _ := s.leaks(name, bytes.NewReader(text)) // a text in memory can be read
	return leaks
}

// leaks reads a log line by line: of each thing found it tells the first line. mu is held.
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

// index finds many values in a text in one go, by their first bytes.
type index struct {
	values  map[string]string // what must not appear, to what it is
	begins  map[[indexed]byte][]string
	short   []string      // values that are too short for that
	another [1 << 16]bool // whether a value begins with these two bytes
}

// indexed is how many bytes of a value are looked up.
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

// find tells what of the values is in the line.
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
