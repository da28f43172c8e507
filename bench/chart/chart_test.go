package chart

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gonum.org/v1/plot/plotter"
)

// Each kind of plot is an SVG with its title, axes, groups and series, and without exponents in numbers.
func TestPlots(t *testing.T) {
	lines := []Line{
		{Name: "first", XYs: plotter.XYs{{X: 1, Y: 900}, {X: 16, Y: 3100}, {X: 64, Y: 200_000}}},
		{Name: "second", XYs: plotter.XYs{{X: 1, Y: 800}, {X: 16, Y: 2900}, {X: 64, Y: 2950}}},
	}
	groups := []string{"one", "two", "three"}
	sets := []Set{{"first", []float64{0.4, 2.5, 31}}, {"second", []float64{0.5, 3, math.NaN()}}}
	for name, row := range map[string]struct {
		draw func(file string) error
		want []string
	}{
		"lines": {
			func(file string) error {
				return Lines(file, "Title", "readers", "reads", lines, LogX, LabelX([]float64{1, 16, 64}, "1", "16", "64"))
			},
			[]string{"Title", "readers", "reads", "16", "100000", "first", "second"},
		},
		"very different figures": {
			func(file string) error { return Lines(file, "Title", "hours", "reads", lines, LogY) },
			[]string{"1000", "100000"},
		},
		"bars": {
			func(file string) error { return Bars(file, "Title", "ratio", groups, sets, Level(1)) },
			[]string{"Title", "ratio", "one", "two", "three", "first", "second"},
		},
		"marks": {
			func(file string) error {
				return Marks(file, "Title", "latency", groups, sets, LogY, NameX("readers"))
			},
			[]string{"Title", "latency", "readers", "one", "two", "three", "first", "second", "10"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "plots", "plot.svg")
			if err := row.draw(file); err != nil {
				t.Fatal(err)
			}
			image, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range row.want {
				if !strings.Contains(string(image), ">"+want+"</text>") {
					t.Errorf("%q is nowhere in the plot", want)
				}
			}
			if strings.Contains(string(image), "e+0") {
				t.Error("a number has an exponent")
			}
			if !strings.Contains(string(image), "sans-serif") {
				t.Error("the typeface has no fallback")
			}
		})
	}
}
