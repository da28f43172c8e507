package main

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// These lines of a page enclose the picture.
const (
	begin = "<!-- The picture is made by `make graph`. -->\n"
	end   = "<!-- The picture ends. -->\n"
)

// draw replaces the picture of the packages, and of the root package's files, in a page.
func draw(page string, loaded []*packages.Package) error {
	text, err := os.ReadFile(page) //nolint:gosec // the caller names the page
	if err != nil {
		return err
	}
	before, rest, hasBegin := strings.Cut(string(text), begin)
	_, after, hasEnd := strings.Cut(rest, end)
	if !hasBegin || !hasEnd {
		return fmt.Errorf("%s lacks the line %q or %q", page, begin, end)
	}
	root := slices.MinFunc(loaded, func(a, b *packages.Package) int { return strings.Compare(a.PkgPath, b.PkgPath) })
	picture := mermaid(packageGraph(loaded)) + "\n" + mermaid(graphOf(root))
	return os.WriteFile(page, []byte(before+begin+picture+end+after), 0o600) //nolint:gosec // as above
}

// packageGraph returns the graph of imports between the packages. A command is named after its directory.
func packageGraph(loaded []*packages.Package) graph {
	name := func(p *packages.Package) string {
		if p.Name == "main" {
			return path.Base(p.PkgPath)
		}
		return p.Name
	}
	g := graph{}
	for _, p := range loaded {
		g[name(p)] = map[string]map[string]bool{}
		for _, other := range loaded {
			if p.Imports[other.PkgPath] != nil {
				g[name(p)][name(other)] = nil
			}
		}
	}
	return g
}

// mermaid draws a graph, without edges that follow from others.
func mermaid(g graph) string {
	var b strings.Builder
	b.WriteString("```mermaid\nflowchart TD\n")
	for _, from := range slices.Sorted(maps.Keys(g)) {
		for _, to := range slices.Sorted(maps.Keys(g[from])) {
			if !g.follows(from, to) {
				fmt.Fprintf(&b, "%s-->%s\n", strings.TrimSuffix(from, ".go"), strings.TrimSuffix(to, ".go"))
			}
		}
	}
	return b.String() + "```\n"
}

// follows reports whether from also reaches to through another node.
func (g graph) follows(from, to string) bool {
	for over := range g[from] {
		reached := map[string]bool{}
		if g.visit(over, reached); over != to && reached[to] {
			return true
		}
	}
	return false
}
