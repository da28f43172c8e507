// Package chart draws the documentation's plots with gonum's plot. Series differ in colour, from the palette of Okabe
// and Ito for colour-blind readers, and in dashes and marks.
package chart

import (
	"bytes"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A Line is one series of a plot.
type Line struct {
	Name string
	XYs  plotter.XYs
}

// A Set is one series of a grouped plot: a value for each group. NaN draws nothing.
type Set struct {
	Name   string
	Values []float64
}

// An Option changes a plot.
type Option func(*plot.Plot)

// LogX makes the horizontal axis logarithmic. All its values must be above 0.
func LogX(p *plot.Plot) { p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, powers{} }

// LogY makes the vertical axis logarithmic. All its values must be above 0.
func LogY(p *plot.Plot) { p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, powers{} }

// powers are the ticks of a logarithmic axis. Only powers of ten have labels.
type powers struct{}

// Ticks implements plot.Ticker.
func (powers) Ticks(least, most float64) []plot.Tick {
	ticks := plot.LogTicks{Prec: -1}.Ticks(least, most)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = inFull(ticks[i].Value)
		}
	}
	return ticks
}

// multiples are the ticks of a linear axis. All have labels.
type multiples struct{}

// Ticks implements plot.Ticker.
func (multiples) Ticks(least, most float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(least, most)
	for i := range ticks {
		ticks[i].Label = inFull(ticks[i].Value)
	}
	return ticks
}

// inFull writes a number without an exponent.
func inFull(v float64) string { return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64) }

// LabelX labels only the given positions of the horizontal axis.
func LabelX(at []float64, labels ...string) Option {
	ticks := make(plot.ConstantTicks, len(at))
	for i := range ticks {
		ticks[i] = plot.Tick{Value: at[i], Label: labels[i]}
	}
	return func(p *plot.Plot) { p.X.Tick.Marker = ticks }
}

// NameX names the horizontal axis of a grouped plot.
func NameX(name string) Option { return func(p *plot.Plot) { p.X.Label.Text = name } }

// Level draws a thin horizontal line at y, such as a target.
func Level(y float64) Option {
	return func(p *plot.Plot) {
		level := plotter.NewFunction(func(float64) float64 { return y })
		level.Dashes = plotutil.Dashes(1)
		p.Add(level)
		p.Y.Min, p.Y.Max = min(p.Y.Min, y), max(p.Y.Max, y)
	}
}

// mostMarks is the largest number of points of a line whose points are marked.
const mostMarks = 20

// Lines draws series as lines on common axes and writes them to file, in the format of its extension. A linear
// vertical axis begins at 0.
func Lines(file, title, x, y string, lines []Line, options ...Option) error {
	p := newPlot(title, x, y)
	for i, line := range lines {
		l, points, err := plotter.NewLinePoints(line.XYs)
		if err != nil {
			return err
		}
		l.Color, l.Width, l.Dashes = colour(i), vg.Points(2), plotutil.Dashes(i)
		p.Add(l)
		if len(line.XYs) > mostMarks {
			p.Legend.Add(line.Name, l)
			continue
		}
		points.GlyphStyle = mark(i)
		p.Add(points)
		p.Legend.Add(line.Name, l, points)
	}
	return save(p, file, options)
}

// Bars draws a group of bars for each of groups, with one bar per set, and writes them to file. Bars begin at 0; for
// a logarithmic axis use Marks.
func Bars(file, title, y string, groups []string, sets []Set, options ...Option) error {
	p := newPlot(title, "", y)
	wide := vg.Length(width) * share / vg.Length(len(groups)*len(sets))
	for i, set := range sets {
		values := make(plotter.Values, len(set.Values))
		for group, value := range set.Values {
			if !math.IsNaN(value) {
				values[group] = value
			}
		}
		bars, err := plotter.NewBarChart(values, wide)
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = colour(i), 0
		bars.Offset = wide * vg.Length(2*i-len(sets)+1) / 2
		p.Add(bars)
		p.Legend.Add(set.Name, bars)
	}
	nominal(p, groups)
	return save(p, file, options)
}

// Marks draws a mark for each value instead of a bar.
func Marks(file, title, y string, groups []string, sets []Set, options ...Option) error {
	p := newPlot(title, "", y)
	for i, set := range sets {
		var at plotter.XYs
		for group, value := range set.Values {
			if !math.IsNaN(value) {
				at = append(at, plotter.XY{X: float64(group) + share*(float64(2*i+1)/float64(2*len(sets))-0.5), Y: value})
			}
		}
		marks, err := plotter.NewScatter(at)
		if err != nil {
			return err
		}
		marks.GlyphStyle = mark(i)
		p.Add(marks)
		p.Legend.Add(set.Name, marks)
	}
	nominal(p, groups)
	return save(p, file, options)
}

// nominal gives each group its label and its position, even if it has no values.
func nominal(p *plot.Plot, groups []string) {
	p.NominalX(groups...)
	p.X.Min, p.X.Max = -0.5, float64(len(groups))-0.5
}

// palette is Okabe and Ito's, without its yellow, which is faint on white.
var palette = []color.Color{
	color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}, // blue
	color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}, // orange
	color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff}, // green
	color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff}, // purple
	color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff}, // vermilion
	color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff}, // sky blue
	color.Black,
}

func colour(i int) color.Color { return palette[i%len(palette)] }

func mark(i int) draw.GlyphStyle {
	return draw.GlyphStyle{Color: colour(i), Radius: vg.Points(4), Shape: plotutil.Shape(i)}
}

const (
	width, height = 600, 380 // of a plot, in points
	edge          = 8        // margin around the plot
	share         = 0.7      // part of a group's width that its bars take
)

// sans is the typeface of all text.
var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font, p.Title.Padding = font.From(sans, 14), vg.Points(8)
	p.Legend.TextStyle.Font, p.Legend.Top = font.From(sans, 12), true
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font, axis.Tick.Label.Font = font.From(sans, 12), font.From(sans, 11)
		axis.Tick.Marker, axis.Padding = multiples{}, 0
	}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	p.Add(grid)
	return p
}

// save writes the plot to file, and makes its directory. It leaves space above the data for the legend.
func save(p *plot.Plot, file string, options []Option) error {
	for _, option := range options {
		option(p)
	}
	if _, log := p.Y.Scale.(plot.LogScale); log {
		p.Y.Min, p.Y.Max = p.Y.Min/1.2, p.Y.Max*math.Pow(p.Y.Max/p.Y.Min, 0.3)
	} else {
		p.Y.Min, p.Y.Max = min(p.Y.Min, 0), p.Y.Max*1.3
	}
	canvas, err := draw.NewFormattedCanvas(width, height, strings.TrimPrefix(filepath.Ext(file), "."))
	if err != nil {
		return err
	}
	all := draw.New(canvas)
	all.SetColor(color.White)
	all.Fill(all.Path())
	p.Draw(draw.Crop(all, edge, -3*edge, edge, -edge))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return err
	}
	// A viewer without this typeface uses a similar one without serifs.
	image := bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,sans-serif;"))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, image, 0o644)
}
