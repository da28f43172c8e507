package measure

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Main runs a command until it ends or is interrupted. If the command fails, Main prints the error and exits with
// status 1.
func Main(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// An Output has the directories of the flags -out and -plots. If one is empty, nothing is written to it.
type Output struct {
	file       string // the name of the JSON file
	out, plots string
}

// OutputFlags defines -out, the directory for a JSON file of this name, and -plots.
func OutputFlags(file string) *Output {
	o := Output{file: file}
	flag.StringVar(&o.out, "out", "", "directory for "+file+"; if empty, none")
	flag.StringVar(&o.plots, "plots", "", "directory for the plots; if empty, none")
	return &o
}

// Results are the figures of a command.
type Results interface {
	Print()                // prints tables to standard output
	Draw(dir string) error // draws plots to files in dir
}

// Show prints results, writes them as JSON, and draws the plots.
func (o *Output) Show(r Results) error {
	r.Print()
	err := WriteJSON(o.out, o.file, r)
	if o.plots != "" {
		err = errors.Join(err, r.Draw(o.plots))
	}
	return err
}

// OnBed starts a bed, shows the results of run, and closes the bed.
func (o *Output) OnBed(ctx context.Context, logLevel string, run func(*bed.Bed) (Results, error)) error {
	b, err := bed.Start(ctx, bed.Options{LogLevel: logLevel})
	if err != nil {
		return err
	}
	results, err := run(b)
	if err == nil {
		err = o.Show(results)
	}
	_, closeErr := b.Close()
	return errors.Join(err, closeErr)
}
