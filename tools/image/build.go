package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// source labels the image with its source repository.
const source = "https://github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth"

// newIndex returns the image of a command for several platforms, from one binary per platform. It contains no times.
func newIndex(version, license string, binaries []string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	platforms := map[string]bool{}
	for _, binary := range binaries {
		platform, err := platformOf(binary)
		if err != nil {
			return nil, err
		}
		if command := filepath.Base(binary); command != filepath.Base(binaries[0]) {
			return nil, fmt.Errorf("%s and %s are two commands: an image holds one", filepath.Base(binaries[0]), command)
		}
		if platforms[platform.Architecture] {
			return nil, fmt.Errorf("two binaries are for %s", platform)
		}
		platforms[platform.Architecture] = true
		image, err := newImage(version, license, binary, platform)
		if err != nil {
			return nil, fmt.Errorf("make the image of %s: %w", binary, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	return index, nil
}

// platformOf returns the platform of an ELF binary.
func platformOf(binary string) (v1.Platform, error) {
	file, err := elf.Open(binary)
	if err != nil {
		return v1.Platform{}, fmt.Errorf("%s is no Linux binary: %w", binary, err)
	}
	defer file.Close()
	switch file.Machine {
	case elf.EM_X86_64:
		return v1.Platform{OS: "linux", Architecture: "amd64"}, nil
	case elf.EM_AARCH64:
		return v1.Platform{OS: "linux", Architecture: "arm64"}, nil
	default:
		return v1.Platform{}, fmt.Errorf("%s is for %s; an image is for amd64 or arm64", binary, file.Machine)
	}
}

func newImage(version, license, binary string, platform v1.Platform) (v1.Image, error) {
	command := filepath.Base(binary)
	program, err := os.ReadFile(binary) //nolint:gosec // G304: the caller names the image's files
	if err != nil {
		return nil, err
	}
	terms, err := os.ReadFile(license) //nolint:gosec // G304: as above
	if err != nil {
		return nil, err
	}
	layer, err := newLayer([]file{
		{"LICENSE", 0o644, terms},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, authorities()},
		{command, 0o755, program},
	})
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	config.Config = v1.Config{
		Entrypoint: []string{"/" + command},
		Labels: map[string]string{
			"org.opencontainers.image.title":    command,
			"org.opencontainers.image.version":  version,
			"org.opencontainers.image.source":   source,
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	// According to Vault's documentation, plugins run as root in their container.
	if command == "mcp-token-proxy" {
		config.Config.User = "65532:65532"
	}
	return mutate.ConfigFile(image, config)
}

// A file is a file of a layer: its path from the root, and its content.
type file struct {
	path    string
	mode    int64
	content []byte
}

func newLayer(files []file) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.content)), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// authorities are the certificates of the public authorities in PEM form. An authority whose trust is limited, such
// as to certificates before a date, is left out, because a file of certificates cannot express the limit.
func authorities() []byte {
	var certificates bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			certificates.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return certificates.Bytes()
}
