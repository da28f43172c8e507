package mcpoauth

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// must returns v of a call that must not fail: key := must(parse(text))(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		noError(t, err)
		return v
	}
}

// noError ends the test if there is an error.
func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// equal compares two values of one type. Empty lists and maps are equal, and nil equals them.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !(isNone(got) && isNone(want)) && !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %#v; want %#v", what, got, want)
	}
}

// isNone reports whether v is nil, or a list or map without elements.
func isNone(v any) bool {
	kind := reflect.ValueOf(v).Kind()
	return kind == reflect.Invalid || (kind == reflect.Slice || kind == reflect.Map) && reflect.ValueOf(v).Len() == 0
}

// sameFields compares all fields, types included.
func sameFields(t *testing.T, got, want fields) {
	t.Helper()
	for _, field := range slices.Sorted(maps.Keys(with(got, want))) {
		if !reflect.DeepEqual(got[field], want[field]) {
			t.Errorf("%s is %#v; want %#v", field, got[field], want[field])
		}
	}
}

// shows checks some fields, types included.
func shows(t *testing.T, got, want fields) {
	t.Helper()
	for _, field := range slices.Sorted(maps.Keys(want)) {
		if !reflect.DeepEqual(got[field], want[field]) {
			t.Errorf("%s is %#v; want %#v", field, got[field], want[field])
		}
	}
}

// warns checks that the only warning holds each of the texts, or that there is no warning if the texts are empty.
func warns(t *testing.T, what string, got []string, texts ...string) {
	t.Helper()
	if wanted := strings.Join(texts, "") != ""; len(got) == 1 != wanted || len(got) > 1 {
		t.Errorf("%s: the warnings are %q; want %q", what, got, texts)
		return
	}
	for _, text := range texts {
		contains(t, what, strings.Join(got, ""), text)
	}
}

// contains checks that a text holds each of the parts.
func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: %q does not hold %q", what, text, part)
		}
	}
}

// inBackground calls do in a goroutine and returns a function that waits for its end.
func inBackground(do func()) (wait func()) {
	var running sync.WaitGroup
	running.Go(do)
	return running.Wait
}

// readText returns the contents of a file.
func readText(t *testing.T, file string) string {
	t.Helper()
	return string(must(os.ReadFile(file))(t))
}
