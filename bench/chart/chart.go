// Package chart draws the plots of the documentation: legible at the width of a README, on white,
// in colours that colour-blind readers can tell apart.
//
// Series are told apart by the colour of the Okabe-Ito palette, and by line style and mark too.
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
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A Line is one series of a plot.
type Line struct {
	Name string
	XYs  plotter.XYs
}

// A Set is one series of a grouped plot: a value for each group. NaN is none.
type Set struct {
	Name   string
	Values []float64
}

// An Option changes a plot.
type Option func(*plot.Plot)

// LogX makes the horizontal axis logarithmic. All its values must be above 0.
func LogX(p *plot.Plot) { logarithmic(&p.X) }

// LogY makes the vertical axis logarithmic. All its values must be above 0.
func LogY(p *plot.Plot) { logarithmic(&p.Y) }

func logarithmic(axis *plot.Axis) {
	axis.Scale = plot.LogScale{}
	axis.Tick.Marker = plot.TickerFunc(logTicks)
}

// logTicks labels the powers of ten, and where they are few their doubles and halves too.
func logTicks(least, most float64) []plot.Tick {
	steps := []float64{1}
	if most/least < 1000 {
		steps = []float64{1, 2, 5}
	}
	var ticks []plot.Tick
	for power := math.Floor(math.Log10(least)); power <= math.Log10(most); power++ {
		for _, step := range steps {
			if at := plain(step * math.Pow(10, power)); at >= least && at <= most {
				ticks = append(ticks, plot.Tick{Value: at, Label: inFull(at)})
			}
		}
	}
	return ticks
}

// linearTicks are at multiples of 1, 2 or 5 times a power of ten, five or more of them.
func linearTicks(least, most float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((most-least)/5)))
	for _, times := range []float64{5, 2} {
		if times*step <= (most-least)/5 {
			step *= times
			break
		}
	}
	var ticks []plot.Tick
	for i := math.Ceil(least / step); i*step <= most; i++ {
		at := plain(i * step)
		ticks = append(ticks, plot.Tick{Value: at, Label: inFull(at)})
	}
	return ticks
}

// plain is a number to four digits: 3*0.1 is 0.3 then.
func plain(v float64) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
	if err != nil {
		return v
	}
	return rounded
}

// inFull writes a number without an exponent.
func inFull(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// LabelX labels the given places of the horizontal axis, and no other.
func LabelX(at []float64, labels ...string) Option {
	return func(p *plot.Plot) {
		ticks := make([]plot.Tick, len(at))
		for i := range ticks {
			ticks[i] = plot.Tick{Value: at[i], Label: labels[i]}
		}
		p.X.Tick.Marker = plot.ConstantTicks(ticks)
	}
}

// NameX names the horizontal axis of a grouped plot.
func NameX(name string) Option { return func(p *plot.Plot) { p.X.Label.Text = name } }

// Level draws a thin horizontal line at y, such as a target.
func Level(y float64) Option {
	return func(p *plot.Plot) {
		level := plotter.NewFunction(func(float64) float64 { return y })
		level.LineStyle = draw.LineStyle{Color: grey, Width: vg.Points(1.5), Dashes: []vg.Length{vg.Points(4), vg.Points(3)}}
		p.Add(level)
		p.Y.Min, p.Y.Max = min(p.Y.Min, y), max(p.Y.Max, y)
	}
}

// Lines draws series as lines over common axes and writes them to file, whose extension says the
// format. A linear vertical axis begins at 0.
func Lines(file, title, x, y string, lines []Line, options ...Option) error {
	f := newFigure(title, x, y)
	for i, line := range lines {
		l, points, err := plotter.NewLinePoints(line.XYs)
		if err != nil {
			return err
		}
		l.Color, l.Width, l.Dashes = colour(i), vg.Points(2), dashes[i%len(dashes)]
		f.Add(l)
		if len(line.XYs) > mostMarks {
			f.explain(line.Name, l)
			continue
		}
		points.GlyphStyle = mark(i)
		f.Add(points)
		f.explain(line.Name, l, points)
	}
	return f.save(file, options)
}

// mostMarks is the number of points up to which each point of a line is marked.
const mostMarks = 20

// Bars draws a group of bars for each of groups, with a bar of each set, and writes them to file.
// Bars begin at 0: for a logarithmic axis see Marks.
func Bars(file, title, y string, groups []string, sets []Set, options ...Option) error {
	f := newFigure(title, "", y)
	wide := place(f.Plot, groups, len(sets))
	for i, set := range sets {
		for group, value := range set.Values {
			if math.IsNaN(value) {
				continue
			}
			left := position(group, i, len(sets)) - wide/2
			bar, err := plotter.NewPolygon(plotter.XYs{{X: left, Y: 0}, {X: left + wide, Y: 0}, {X: left + wide, Y: value}, {X: left, Y: value}})
			if err != nil {
				return err
			}
			bar.Color = colour(i)
			bar.LineStyle = draw.LineStyle{Color: color.White, Width: vg.Points(0.5)}
			f.Add(bar)
		}
		f.explain(set.Name, swatch{colour(i)})
	}
	return f.save(file, options)
}

// Marks draws a mark for each value where Bars draws a bar.
func Marks(file, title, y string, groups []string, sets []Set, options ...Option) error {
	f := newFigure(title, "", y)
	place(f.Plot, groups, len(sets))
	for i, set := range sets {
		var at plotter.XYs
		for group, value := range set.Values {
			if !math.IsNaN(value) {
				at = append(at, plotter.XY{X: position(group, i, len(sets)), Y: value})
			}
		}
		marks, err := plotter.NewScatter(at)
		if err != nil {
			return err
		}
		marks.GlyphStyle = mark(i)
		f.Add(marks)
		f.explain(set.Name, marks)
	}
	return f.save(file, options)
}

// place labels the groups, and tells how wide one of n sets may be.
func place(p *plot.Plot, groups []string, n int) (wide float64) {
	at := make([]float64, len(groups))
	for i := range at {
		at[i] = float64(i)
	}
	LabelX(at, groups...)(p)
	p.X.Min, p.X.Max = -0.5, float64(len(groups))-0.5
	return share / float64(n)
}

// share is how much of a group's place its bars take.
const share = 0.75

// position is the middle of one of n sets in a group.
func position(group, set, n int) float64 {
	return float64(group) + share*((float64(set)+0.5)/float64(n)-0.5)
}

var grey = color.RGBA{R: 0x55, G: 0x55, B: 0x55, A: 0xff}

// palette is that of Okabe and Ito, without its yellow, which is faint on white.
var palette = []color.Color{
	color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}, // blue
	color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}, // orange
	color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff}, // green
	color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff}, // purple
	color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff}, // vermilion
	color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff}, // sky blue
	color.Black,
}

var dashes = [][]vg.Length{
	nil,
	{vg.Points(8), vg.Points(4)},
	{vg.Points(2), vg.Points(3)},
	{vg.Points(10), vg.Points(3), vg.Points(2), vg.Points(3)},
}

var glyphs = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, diamond{},
}

// diamond is a filled one.
type diamond struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (diamond) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	r := style.Radius * 1.2
	c.FillPolygon(style.Color, []vg.Point{{X: at.X, Y: at.Y + r}, {X: at.X + r, Y: at.Y}, {X: at.X, Y: at.Y - r}, {X: at.X - r, Y: at.Y}})
}

func colour(i int) color.Color { return palette[i%len(palette)] }

func mark(i int) draw.GlyphStyle {
	return draw.GlyphStyle{Color: colour(i), Radius: vg.Points(4.5), Shape: glyphs[i%len(glyphs)]}
}

// swatch is a bar in the legend.
type swatch struct{ color color.Color }

// Thumbnail implements plot.Thumbnailer.
func (s swatch) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(s.color, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
}

// A figure is a plot with its legend, which is below it, where it hides nothing.
type figure struct {
	*plot.Plot
	legend []entry
}

type entry struct {
	name   string
	thumbs []plot.Thumbnailer
}

// sans is the typeface of all text.
var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

func newFigure(title, x, y string) *figure {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font = font.From(sans, 14)
	p.Title.Padding = vg.Points(10)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = font.From(sans, 12)
		axis.Label.Padding = vg.Points(6)
		axis.Tick.Label.Font = font.From(sans, 11)
		axis.Padding = 0
		axis.Tick.Marker = plot.TickerFunc(linearTicks)
	}
	p.Legend.TextStyle.Font = font.From(sans, 12)
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.Gray{Y: 0xdd}
	p.Add(grid)
	return &figure{Plot: p}
}

// explain adds a series to the legend.
func (f *figure) explain(name string, thumbs ...plot.Thumbnailer) {
	f.legend = append(f.legend, entry{name, thumbs})
}

// Sizes, in points: three quarters of a pixel.
const (
	width, height = 600, 350
	edge          = 8
	thumbWidth    = 30
	gap           = 6  // between a thumbnail and its name
	entryGap      = 22 // between entries
	rowHeight     = 18
)

// save draws the figure and writes it to file, for which it makes the directory.
func (f *figure) save(file string, options []Option) error {
	for _, option := range options {
		option(f.Plot)
	}
	if _, log := f.Y.Scale.(plot.LogScale); log {
		f.Y.Min, f.Y.Max = f.Y.Min/1.2, f.Y.Max*1.2
	} else {
		f.Y.Min, f.Y.Max = min(f.Y.Min, 0), f.Y.Max*1.05
	}
	rows := f.rows(width - 2*edge)
	foot := vg.Length(len(rows)*rowHeight + edge)
	format := strings.TrimPrefix(filepath.Ext(file), ".")
	canvas, err := draw.NewFormattedCanvas(width, height+foot, format)
	if err != nil {
		return err
	}
	all := draw.New(canvas)
	all.FillPolygon(f.BackgroundColor, []vg.Point{all.Min, {X: all.Max.X, Y: all.Min.Y}, all.Max, {X: all.Min.X, Y: all.Max.Y}})
	f.Draw(draw.Crop(all, edge, -2*edge, foot, -edge))
	for i, row := range rows {
		f.drawRow(all, row, foot-vg.Length(i+1)*rowHeight)
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return err
	}
	// Who lacks this typeface is to see one like it, and not one with serifs.
	image := bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, image, 0o644)
}

// rows breaks the legend into rows of at most the given width.
func (f *figure) rows(most vg.Length) [][]entry {
	var rows [][]entry
	var used vg.Length
	for _, e := range f.legend {
		w := f.entryWidth(e)
		if len(rows) == 0 || used+w > most {
			rows, used = append(rows, nil), 0
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], e)
		used += w + entryGap
	}
	return rows
}

func (f *figure) entryWidth(e entry) vg.Length {
	return thumbWidth + gap + f.Legend.TextStyle.Width(e.name)
}

// drawRow draws a row of the legend in the middle of c, at the height y.
func (f *figure) drawRow(c draw.Canvas, row []entry, y vg.Length) {
	wide := vg.Length(len(row)-1) * entryGap
	for _, e := range row {
		wide += f.entryWidth(e)
	}
	x := c.Center().X - wide/2
	style := f.Legend.TextStyle
	for _, e := range row {
		thumb := draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: x, Y: y}, Max: vg.Point{X: x + thumbWidth, Y: y + style.Font.Size*0.8},
		}}
		for _, t := range e.thumbs {
			t.Thumbnail(&thumb)
		}
		c.FillText(style, vg.Point{X: x + thumbWidth + gap, Y: y}, e.name)
		x += f.entryWidth(e) + entryGap
	}
}
