package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gonum.org/v1/plot/plotter"
)

// Each kind of plot is an SVG that names its title, axes, groups and series, on white.
func TestPlots(t *testing.T) {
	dir := t.TempDir()
	lines := []Line{
		{Name: "first", XYs: plotter.XYs{{X: 1, Y: 900}, {X: 16, Y: 3100}, {X: 64, Y: 3000}}},
		{Name: "second", XYs: plotter.XYs{{X: 1, Y: 800}, {X: 16, Y: 2900}, {X: 64, Y: 2950}}},
		{Name: "third", XYs: plotter.XYs{{X: 1, Y: 1500}, {X: 16, Y: 4000}, {X: 64, Y: 4100}}},
	}
	large := []Line{{Name: "large", XYs: plotter.XYs{{X: 0.5, Y: 1}, {X: 3.5, Y: 200_000}}}}
	groups := []string{"one", "two", "three"}
	sets := []Set{{"first", []float64{0.4, 2.5, 31}}, {"second", []float64{0.5, 3, math.NaN()}}}
	for name, row := range map[string]struct {
		draw func(file string) error
		want []string
	}{
		"lines": {
			func(file string) error {
				return Lines(file, "Title", "readers", "reads a second", lines, LogX, LabelX([]float64{1, 16, 64}, "1", "16", "64"))
			},
			[]string{"Title", "readers", "reads a second", "16", "first", "second", "third"},
		},
		"large figures": {
			func(file string) error { return Lines(file, "Title", "hours", "reads", large) },
			[]string{"100000", "200000"},
		},
		"very different figures": {
			func(file string) error { return Lines(file, "Title", "hours", "reads", large, LogY) },
			[]string{"1", "10", "100000"},
		},
		"bars": {
			func(file string) error { return Bars(file, "Title", "ratio", groups, sets, Level(1)) },
			[]string{"Title", "ratio", "one", "two", "three", "first", "second"},
		},
		"marks": {
			func(file string) error {
				return Marks(file, "Title", "latency, ms", groups, sets, LogY, NameX("readers"))
			},
			[]string{"Title", "latency, ms", "readers", "one", "two", "three", "first", "second", "0.5", "10"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, name+".svg")
			if err := row.draw(file); err != nil {
				t.Fatal(err)
			}
			texts, typeface := readSVG(t, file)
			for _, want := range row.want {
				if !texts[want] {
					t.Errorf("%q is nowhere in the plot", want)
				}
			}
			if !strings.Contains(typeface, "sans-serif") {
				t.Errorf("the typeface is %q, which not everybody has", typeface)
			}
		})
	}
}

func TestTicksAreRoundAndEnough(t *testing.T) {
	for _, row := range []struct {
		least, most float64
		want        string
	}{
		{0, 40, "0 5 10 15 20 25 30 35 40"},
		{0, 860, "0 100 200 300 400 500 600 700 800"},
		{0, 1.13, "0 0.2 0.4 0.6 0.8 1"},
		{0, 2100, "0 200 400 600 800 1000 1200 1400 1600 1800 2000"},
		{3, 5.6, "3 3.5 4 4.5 5 5.5"},
	} {
		var labels []string
		for _, tick := range linearTicks(row.least, row.most) {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != row.want {
			t.Errorf("from %v to %v: %s; want %s", row.least, row.most, got, row.want)
		}
	}
}

// readSVG gives all texts of an SVG file and the style of one.
func readSVG(t *testing.T, file string) (texts map[string]bool, style string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	texts = make(map[string]bool)
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts, style
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.CharData:
			texts[strings.TrimSpace(string(token))] = true
		case xml.StartElement:
			for _, a := range token.Attr {
				if token.Name.Local == "text" && a.Name.Local == "style" {
					style = a.Value
				}
			}
		}
	}
}
