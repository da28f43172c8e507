// Command image makes the OCI image of one of the project's commands, for the platform of each given binary, and
// pushes it to a registry. It needs no container engine, and the same binaries give the same image:
//
//	image -version v0.2.0 -license LICENSE [-push REFERENCE]... BINARY...
//
// The binaries' file name is the name of the command. The image holds the binary, as its entry point, at its root,
// where OpenBao looks for a plugin; the certificates of the public authorities that Mozilla trusts; and the licence.
// The image of mcp-token-proxy runs as user 65532.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// run implements main. It prints the image's digest.
func run(ctx context.Context, args []string, out, errs io.Writer) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(errs)
	version := flags.String("version", "", "the `version` of the binaries, for the image's labels")
	license := flags.String("license", "", "the `file` of the licence")
	var references []name.Reference
	flags.Func("push", "push the image to this `reference`, such as ghcr.io/owner/name:0.2.0; may be given again", func(text string) error {
		ref, err := name.ParseReference(text)
		references = append(references, ref)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *version == "" || *license == "" || flags.NArg() == 0 {
		return errors.New("give -version, -license and at least one binary")
	}
	index, err := newIndex(*version, *license, flags.Args())
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	for _, ref := range references {
		err := remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
		if err != nil {
			return fmt.Errorf("push to %s: %w", ref, err)
		}
	}
	_, err = fmt.Fprintln(out, digest)
	return err
}
