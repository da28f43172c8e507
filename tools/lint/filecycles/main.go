// Command filecycles fails if files of one package depend on each other in a cycle.
//
//	filecycles DIRECTORY [PACKAGE ...]
//
// It loads the packages (by default ./...) of the module in the directory, without their
// tests. A file depends on another one of its package if it uses a name, a method or a
// field that is declared there.
package main

import (
	"fmt"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: filecycles DIRECTORY [PACKAGE ...]")
		os.Exit(2)
	}
	patterns := os.Args[2:]
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	cycles, err := check(os.Stdout, os.Args[1], patterns...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "filecycles:", err)
		os.Exit(2)
	}
	if cycles > 0 {
		os.Exit(1)
	}
}

// check writes the cycles of the packages that match the patterns, and counts them.
func check(out io.Writer, dir string, patterns ...string) (cycles int, err error) {
	loaded, err := packages.Load(&packages.Config{
		Dir: dir,
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports |
			packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo,
	}, patterns...)
	if err != nil {
		return 0, fmt.Errorf("loading packages: %w", err)
	}
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return 0, fmt.Errorf("loading %s: %w", p.PkgPath, p.Errors[0])
		}
		g := graphOf(p)
		for _, files := range g.cycles() {
			cycles++
			fmt.Fprintf(out, "%s: a cycle of files: %s\n", p.PkgPath, strings.Join(files, " "))
			for _, from := range files {
				for _, to := range files {
					if names := g[from][to]; len(names) > 0 {
						fmt.Fprintf(out, "\t%s -> %s: %s\n", from, to, strings.Join(slices.Sorted(maps.Keys(names)), " "))
					}
				}
			}
		}
	}
	return cycles, nil
}

// graph holds the names that a file (first key) uses of another one (second key).
type graph map[string]map[string]map[string]bool

func graphOf(p *packages.Package) graph {
	g := graph{}
	fileOf := func(node interface{ Pos() token.Pos }) string {
		return filepath.Base(p.Fset.Position(node.Pos()).Filename)
	}
	for id, used := range p.TypesInfo.Uses {
		// Only what is declared outside of functions can be used in another file.
		if used.Pkg() != p.Types {
			continue
		}
		if _, isPackage := used.(*types.PkgName); isPackage {
			continue
		}
		from, to := fileOf(id), fileOf(used)
		if from == to {
			continue
		}
		if g[from] == nil {
			g[from] = map[string]map[string]bool{}
		}
		if g[from][to] == nil {
			g[from][to] = map[string]bool{}
		}
		g[from][to][used.Name()] = true
	}
	return g
}

// cycles are the sets of files that reach each other, with their files in order.
func (g graph) cycles() [][]string {
	reach := map[string]map[string]bool{}
	for from := range g {
		reach[from] = map[string]bool{}
		g.visit(from, reach[from])
	}
	var cycles [][]string
	seen := map[string]bool{}
	for _, from := range slices.Sorted(maps.Keys(g)) {
		if seen[from] || !reach[from][from] {
			continue
		}
		var files []string
		for to := range reach[from] {
			if reach[to][from] {
				files = append(files, to)
				seen[to] = true
			}
		}
		slices.Sort(files)
		cycles = append(cycles, files)
	}
	return cycles
}

// visit adds to seen the files that a file depends on, directly or not.
func (g graph) visit(file string, seen map[string]bool) {
	for to := range g[file] {
		if !seen[to] {
			seen[to] = true
			g.visit(to, seen)
		}
	}
}
