package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// command writes a file that looks like a command's Linux binary, and returns its path.
func command(t *testing.T, file string, machine elf.Machine) string {
	t.Helper()
	header := elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_EXEC),
		Machine: uint16(machine),
		Version: uint32(elf.EV_CURRENT),
		Ehsize:  64,
	}
	var content bytes.Buffer
	if err := binary.Write(&content, binary.LittleEndian, header); err != nil {
		t.Fatal(err)
	}
	return write(t, file, content.Bytes())
}

// write writes a file in a new directory.
func write(t *testing.T, file string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// image runs the command, and returns the printed digest.
func image(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	err := run(t.Context(), args, &out, &errs)
	return strings.TrimSpace(out.String()), err
}

func TestImageHoldsTheCommandForEachPlatform(t *testing.T) {
	license := write(t, "LICENSE", []byte("the licence"))
	for name, user := range map[string]string{"vault-plugin-mcp-oauth": "", "mcp-token-proxy": "65532:65532"} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(registry.New())
			defer server.Close()
			amd64, arm64 := command(t, name, elf.EM_X86_64), command(t, name, elf.EM_AARCH64)
			reference := strings.TrimPrefix(server.URL, "http://") + "/" + name + ":1.2.3"
			digest, err := image(t, "-version", "v1.2.3", "-license", license, "-push", reference, amd64, arm64)
			if err != nil {
				t.Fatal(err)
			}

			// Another run makes the same image as the pushed one.
			pushed := pull(t, reference)
			again, err := image(t, "-version", "v1.2.3", "-license", license, amd64, arm64)
			if err != nil {
				t.Fatal(err)
			}
			got, err := pushed.Digest()
			if err != nil || got.String() != digest || again != digest {
				t.Errorf("printed %s, pushed %s, made %s again: %v", digest, got, again, err)
			}

			for arch, path := range map[string]string{"amd64": amd64, "arm64": arm64} {
				img := ofPlatform(t, pushed, arch)
				config, err := img.ConfigFile()
				if err != nil {
					t.Fatal(err)
				}
				if config.OS != "linux" || config.Architecture != arch || config.Config.User != user ||
					!reflect.DeepEqual(config.Config.Entrypoint, []string{"/" + name}) ||
					config.Config.Labels["org.opencontainers.image.version"] != "v1.2.3" {
					t.Errorf("the configuration for %s is %+v", arch, config)
				}
				files := filesOf(t, img)
				program, err := os.ReadFile(path)
				if err != nil || !bytes.Equal(files[name], program) || string(files["LICENSE"]) != "the licence" {
					t.Errorf("the image for %s does not hold %s and the licence at its root", arch, name)
				}
				roots := x509.NewCertPool()
				if !roots.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"]) {
					t.Error("the image holds no certificates of public authorities")
				}
			}
		})
	}
}

func TestImageOfWrongBinaries(t *testing.T) {
	license := write(t, "LICENSE", []byte("the licence"))
	amd64 := command(t, "mcp-token-proxy", elf.EM_X86_64)
	for want, binaries := range map[string][]string{
		"at least one binary":       nil,
		"is no Linux binary":        {write(t, "mcp-token-proxy", []byte("#!/bin/sh\n"))},
		"is for EM_RISCV":           {command(t, "mcp-token-proxy", elf.EM_RISCV)},
		"two binaries are for":      {amd64, command(t, "mcp-token-proxy", elf.EM_X86_64)},
		"an image holds one":        {amd64, command(t, "vault-plugin-mcp-oauth", elf.EM_AARCH64)},
		"no such file or directory": {filepath.Join(t.TempDir(), "missing")},
	} {
		if _, err := image(t, append([]string{"-version", "v1.2.3", "-license", license}, binaries...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the image of %q: %v, want %q", binaries, err, want)
		}
	}
}

func pull(t *testing.T, reference string) v1.ImageIndex {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// ofPlatform returns the image for clients on a platform of Linux.
func ofPlatform(t *testing.T, index v1.ImageIndex, arch string) v1.Image {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Manifests {
		if m.Platform.Equals(v1.Platform{OS: "linux", Architecture: arch}) {
			img, err := index.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return img
		}
	}
	t.Fatalf("the index holds nothing for %s: %v", arch, manifest.Manifests)
	return nil
}

// filesOf returns the files of an image by path.
func filesOf(t *testing.T, img v1.Image) map[string][]byte {
	t.Helper()
	content := mutate.Extract(img)
	defer content.Close()
	files, archive := map[string][]byte{}, tar.NewReader(content)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}
