package mcpoauth

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// apiSection is the part of docs/api.md below a heading.
type apiSection struct {
	requests  map[string]string // by field: type and default
	responses map[string]bool   // by field
}

var (
	// apiPath is a row of the table of paths.
	apiPath = regexp.MustCompile(`^\| (.+) \| (.+) \|$`)
	// apiItem is a list item: "- name, name (type, default): " for request fields, "- name, name: " for response
	// fields.
	apiItem = regexp.MustCompile(`^- ((?:\w+, )*\w+)(?: \((.+?)\))?: `)
	// wrapped matches a line break inside an item.
	wrapped = regexp.MustCompile(`\n +([^ -])`)
)

// apiPage returns the sections of docs/api.md by the path in their heading, and the operations in its table of paths.
func apiPage(t *testing.T) (sections map[string]*apiSection, operations map[string]string) {
	t.Helper()
	sections, operations = map[string]*apiSection{}, map[string]string{}
	var section *apiSection // nil before the first heading
	page := wrapped.ReplaceAllString(strings.ReplaceAll(readText(t, "docs/api.md"), "`", ""), " $1")
	for line := range strings.SplitSeq(page, "\n") {
		if paths, ok := strings.CutPrefix(line, "## "); ok {
			section = &apiSection{requests: map[string]string{}, responses: map[string]bool{}}
			for path := range strings.SplitSeq(paths, ", ") {
				sections[path] = section
			}
		}
		if row := apiPath.FindStringSubmatch(line); len(row) == 3 && section == nil {
			for path := range strings.SplitSeq(row[1], ", ") {
				operations[path] = row[2]
			}
		}
		item := apiItem.FindStringSubmatch(line)
		if item == nil || section == nil {
			continue
		}
		for field := range strings.SplitSeq(item[1], ", ") {
			twice := section.responses[field]
			if ofRequest := item[2] != ""; ofRequest {
				twice = section.requests[field] != ""
				section.requests[field] = item[2]
			} else {
				section.responses[field] = true
			}
			if twice {
				t.Errorf("the page has %q twice", field)
			}
		}
	}
	delete(operations, "path") // the table's header
	return sections, operations
}

// apiTypes are the page's names for the types of request fields.
var apiTypes = map[framework.FieldType]string{
	framework.TypeString: "string", framework.TypeBool: "bool", framework.TypeDurationSecond: "duration",
	framework.TypeCommaStringSlice: "list", framework.TypeMap: "map", framework.TypeKVPairs: "map",
}

// defaultInText finds the default in the description of a field without a fixed default.
var defaultInText = regexp.MustCompile(`Default: (.+?)\.( At most .*)?$`)

// apiDefault returns the text of a field's default on the page; empty if it has none.
func apiDefault(field *framework.FieldSchema) string {
	if field.Default != nil {
		return fmt.Sprint(field.Default)
	}
	if said := defaultInText.FindStringSubmatch(field.Description); said != nil {
		return strings.TrimPrefix(said[1], "none")
	}
	switch {
	case strings.Contains(field.Description, " Required."):
		return "required"
	case field.Type == framework.TypeBool:
		return "false"
	case field.Type == framework.TypeDurationSecond:
		return "0"
	default:
		return ""
	}
}

// docs/api.md lists every path and its operations, every request field with its type and default, every response
// field, and nothing more.
func TestAPIPageIsThatOfThePaths(t *testing.T) {
	sections, operations := apiPage(t)
	for _, path := range newMount(t).b.(*backend).Paths {
		at := strings.ReplaceAll(strings.TrimSuffix(path.Pattern, "$"), `\.`, ".")
		for _, name := range []string{"server", "role", "id"} {
			at = strings.Replace(at, framework.GenericNameRegex(name), ":"+name, 1)
		}
		has := slices.Sorted(maps.Keys(path.Operations))
		at, listed := strings.CutSuffix(at, "/?")
		if listed && path.Operations[logical.ReadOperation] == nil {
			at += "/"
		}
		said := operations[at]
		delete(operations, at)
		if said == "" {
			t.Errorf("the page has no path %s", at)
			continue
		}
		got := slices.Sorted(strings.SplitSeq(said, ", "))
		equal(t, at+": the page's operations", strings.Join(got, " "), strings.Trim(fmt.Sprint(has), "[]"))
		if len(has) == 1 && has[0] == logical.ListOperation || at == metricsPath {
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
		equal(t, at+": the page's fields", slices.Sorted(maps.Keys(section.requests)), slices.Sorted(maps.Keys(requests)))
		for field, schema := range requests {
			want := apiTypes[schema.Type]
			if byDefault := apiDefault(schema); byDefault != "" {
				want += ", " + byDefault
			}
			equal(t, at+": the page's type and default of "+field, section.requests[field], want)
		}
		responses := map[string]*framework.FieldSchema{}
		for op, handler := range path.Operations {
			for _, response := range handler.Properties().Responses[200] {
				if op != logical.ListOperation {
					maps.Copy(responses, response.Fields)
				}
			}
		}
		for field := range section.responses {
			if responses[field] == nil {
				t.Errorf("%s: the page has %s, which no response has", at, field)
			}
			delete(responses, field)
		}
		for field := range responses {
			if section.requests[field] == "" {
				t.Errorf("%s: the page lacks the response's %s", at, field)
			}
		}
	}
	for at := range operations {
		t.Errorf("the page has %s, which is not a path", at)
	}
}
