// Command filecycles fails if files of one package depend on each other in a cycle.
//
//	filecycles [-picture PAGE] DIRECTORY [PACKAGE ...]
//
// It loads packages of the module in the directory, by default ./..., without their tests. A file depends on another
// file of its package if it uses a name, a method or a field declared there. With -picture, it draws the graph into a
// page instead.
package main

import (
	"flag"
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
	page := flag.String("picture", "", "draw the graph of packages, and of the root package's files, into this page")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: filecycles [-picture PAGE] DIRECTORY [PACKAGE ...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() < 1 {
		flag.Usage()
		os.Exit(2)
	}
	patterns := flag.Args()[1:]
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	loaded, err := load(flag.Arg(0), patterns...)
	cycles := 0
	if err == nil && *page != "" {
		err = draw(*page, loaded)
	} else if err == nil {
		cycles = check(os.Stdout, loaded)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "filecycles:", err)
		os.Exit(2)
	}
	if cycles > 0 {
		os.Exit(1)
	}
}

// load loads the packages matching the patterns, without their tests.
func load(dir string, patterns ...string) ([]*packages.Package, error) {
	loaded, err := packages.Load(&packages.Config{
		Dir: dir,
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports |
			packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo,
	}, patterns...)
	if err != nil {
		return nil, fmt.Errorf("loading packages: %w", err)
	}
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return nil, fmt.Errorf("loading %s: %w", p.PkgPath, p.Errors[0])
		}
	}
	return loaded, nil
}

// check writes the cycles of the packages, and returns their number.
func check(out io.Writer, loaded []*packages.Package) (cycles int) {
	for _, p := range loaded {
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
	return cycles
}

// graph holds the names from another file (second key) that a file (first key) uses.
type graph map[string]map[string]map[string]bool

func graphOf(p *packages.Package) graph {
	g := graph{}
	fileOf := func(node interface{ Pos() token.Pos }) string {
		return filepath.Base(p.Fset.Position(node.Pos()).Filename)
	}
	for id, used := range p.TypesInfo.Uses {
		// Other files can only use declarations outside of functions.
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

// cycles returns the sets of files that reach each other. Each set is sorted.
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

// visit adds to seen all files on which a file depends, directly or indirectly.
func (g graph) visit(file string, seen map[string]bool) {
	for to := range g[file] {
		if !seen[to] {
			seen[to] = true
			g.visit(to, seen)
		}
	}
}
