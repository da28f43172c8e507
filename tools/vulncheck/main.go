// Command vulncheck looks for known vulnerabilities in the modules linked into Go binaries:
//
//	vulncheck [-db URL] BINARY...
//
// It queries the Go vulnerability database through govulncheck. If it cannot reach the database, it reports this, and
// instead compares the modules in a binary's build information with minimum versions.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/vuln/scan"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "vulncheck:", err)
		os.Exit(1)
	}
}

// run implements main. It returns an error if a binary has a vulnerability or cannot be checked.
func run(ctx context.Context, args []string, out, errs io.Writer) error {
	flags := flag.NewFlagSet("vulncheck", flag.ContinueOnError)
	flags.SetOutput(errs)
	db := flags.String("db", "https://vuln.go.dev", "the `URL` of the vulnerability database")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("give at least one binary")
	}
	unreachable := probe(ctx, *db)
	var found []error
	for _, binary := range flags.Args() {
		fmt.Fprintln(out, binary)
		linked, err := modulesOf(binary)
		if err != nil {
			return err
		}
		if unreachable != nil {
			fmt.Fprintf(out, "%s can't be reached (%v): comparing %d linked modules with %d minimum versions instead\n",
				*db, unreachable, len(linked), len(minimum))
			found = append(found, belowMinimum(linked, minimum)...)
			continue
		}
		vulnerable, err := ask(ctx, *db, binary, out)
		if err != nil {
			return fmt.Errorf("govulncheck of %s: %w", binary, err)
		}
		if vulnerable {
			found = append(found, fmt.Errorf("%s has known vulnerabilities", binary))
		}
	}
	return errors.Join(found...)
}

// probeTimeout is the limit for the database's first answer.
var probeTimeout = 30 * time.Second

// probe returns an error if a database on the network does not answer.
func probe(ctx context.Context, db string) error {
	if !strings.HasPrefix(db, "http") {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(db, "/")+"/index/db.json", http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// exitVulnerable is govulncheck's exit status if it has found vulnerabilities.
const exitVulnerable = 3

// ask runs govulncheck on a binary, for at most two minutes, and reports whether the binary has vulnerabilities.
func ask(ctx context.Context, db, binary string, out io.Writer) (vulnerable bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := scan.Command(ctx, "-mode=binary", "-db="+db, binary)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return false, err
	}
	err = cmd.Wait()
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) && exit.ExitCode() == exitVulnerable {
		return true, nil
	}
	return false, err
}
