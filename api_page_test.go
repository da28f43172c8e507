package mcpoauth

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// apiSection is the part of docs/api.md below a heading: its tables' rows, by the first cell.
type apiSection struct {
	requests  map[string][]string // field: type, default, meaning
	responses map[string][]string // field: type, meaning
}

// apiPage returns the sections of docs/api.md by the paths that their headings name, and the page's table of
// paths with their operations.
func apiPage(t *testing.T) (sections map[string]*apiSection, operations map[string][]string) {
	t.Helper()
	page, err := os.ReadFile("docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	sections, operations = map[string]*apiSection{}, map[string][]string{}
	section, header := &apiSection{}, ""
	for line := range strings.Lines(string(page)) {
		if paths, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			section = &apiSection{requests: map[string][]string{}, responses: map[string][]string{}}
			for path := range strings.SplitSeq(paths, ", ") {
				sections[path] = section
			}
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "`", ""))
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			header = ""
			continue
		case header == "":
			header = strings.Join(cells, " ")
			continue
		case strings.HasPrefix(line, "|-"):
			continue
		}
		var rows map[string][]string
		switch header {
		case "path operations for":
			rows = operations
		case "field type default meaning":
			rows = section.requests
		case "field type meaning":
			rows = section.responses
		default:
			continue
		}
		for name := range strings.SplitSeq(cells[0], ", ") {
			if rows[name] != nil {
				t.Errorf("the page has %q twice", name)
			}
			rows[name] = cells[1:]
		}
	}
	return sections, operations
}

// apiTypes are the page's names of the framework's types.
var apiTypes = map[framework.FieldType]string{
	framework.TypeString: "string", framework.TypeBool: "bool", framework.TypeTime: "time",
	framework.TypeInt: "integer", framework.TypeInt64: "integer", framework.TypeDurationSecond: "duration",
	framework.TypeCommaStringSlice: "list", framework.TypeStringSlice: "list", framework.TypeSlice: "list",
	framework.TypeMap: "map", framework.TypeKVPairs: "map",
}

// defaultInText is the default of a field that has no fixed one.
var defaultInText = regexp.MustCompile(`Default: (.+?)\.( At most .*)?$`)

// apiDefault returns what the page must say of a field's default.
func apiDefault(field *framework.FieldSchema) string {
	if field.Default != nil {
		return fmt.Sprint(field.Default)
	}
	if said := defaultInText.FindStringSubmatch(field.Description); said != nil {
		return said[1]
	}
	switch {
	case strings.Contains(field.Description, " Required."):
		return "required"
	case field.Type == framework.TypeBool:
		return "false"
	case field.Type == framework.TypeDurationSecond:
		return "0"
	default:
		return "none"
	}
}

// docs/api.md has every path with its operations, every field with its type and default, and nothing else.
func TestAPIPageIsThatOfThePaths(t *testing.T) {
	sections, operations := apiPage(t)
	for _, path := range newMount(t).b.(*backend).Paths {
		at := strings.ReplaceAll(strings.TrimSuffix(path.Pattern, "$"), `\.`, ".")
		for _, name := range []string{"server", "role", "id"} {
			at = strings.Replace(at, framework.GenericNameRegex(name), ":"+name, 1)
		}
		var has []string
		for op := range path.Operations {
			has = append(has, string(op))
		}
		at, listed := strings.CutSuffix(at, "/?")
		if listed && !slices.Contains(has, string(logical.ReadOperation)) {
			at += "/"
		}
		said := operations[at]
		delete(operations, at)
		if said == nil {
			t.Errorf("the page has no path %s", at)
			continue
		}
		ops, _, _ := strings.Cut(said[0], ", without")
		if got := strings.Split(ops, ", "); !sameTexts(got, has) {
			t.Errorf("%s: the page has the operations %q; want %q", at, got, has)
		}
		if slices.Equal(has, []string{string(logical.ListOperation)}) || at == metricsPath {
			continue
		}
		section := sections[at]
		if section == nil {
			t.Errorf("the page has no section %s", at)
			continue
		}
		requests := maps.Clone(path.Fields)
		delete(requests, "server")
		delete(requests, "role")
		delete(requests, "id")
		if want, got := slices.Sorted(maps.Keys(requests)), slices.Sorted(maps.Keys(section.requests)); !slices.Equal(got, want) {
			t.Errorf("%s: the page has the request's fields\n%q; want\n%q", at, got, want)
			continue
		}
		for field, schema := range requests {
			if got, want := section.requests[field][:2], []string{apiTypes[schema.Type], apiDefault(schema)}; !slices.Equal(got, want) {
				t.Errorf("%s: the page says of %s %q; want %q", at, field, got, want)
			}
		}
		responses := map[string]*framework.FieldSchema{}
		for op, handler := range path.Operations {
			for _, response := range handler.Properties().Responses[200] {
				if op != logical.ListOperation {
					maps.Copy(responses, response.Fields)
				}
			}
		}
		for field, row := range section.responses {
			if schema := responses[field]; schema == nil || row[0] != apiTypes[schema.Type] {
				t.Errorf("%s: the page has %s, %s, which no response has", at, field, row[0])
			}
			delete(responses, field)
		}
		for field := range responses {
			if section.requests[field] == nil {
				t.Errorf("%s: the page lacks the response's %s", at, field)
			}
		}
	}
	for at := range operations {
		t.Errorf("the page has %s, which is no path", at)
	}
}

// sameTexts reports whether two lists hold the same texts, in any order.
func sameTexts(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
