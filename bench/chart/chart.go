// Package chart draws the plots of the documentation.
package chart

import (
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// A Line is one series of a plot.
type Line struct {
	Name string
	XYs  plotter.XYs
}

// Lines draws series as lines over common axes and writes them to file, whose extension says the format.
func Lines(file, title, x, y string, lines []Line) error {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = x, y
	for _, line := range lines {
		l, err := plotter.NewLine(line.XYs)
		if err != nil {
			return err
		}
		p.Add(l)
		p.Legend.Add(line.Name, l)
	}
	return p.Save(16*vg.Centimeter, 10*vg.Centimeter, file)
}
