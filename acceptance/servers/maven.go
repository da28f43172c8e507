package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// fetchArtifact fetches an artifact (group:artifact:version:type) into dir with Maven, and checks its SHA-256. It
// returns the file.
func fetchArtifact(ctx context.Context, artifact, sum, dir string) (string, error) {
	// The repository is separate and temporary, because the caller keeps the unpacked artifact.
	repository, err := os.MkdirTemp("", "maven-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(repository)
	cmd := exec.CommandContext(ctx, "mvn", "--batch-mode", "--quiet", "-Dmaven.repo.local="+repository,
		"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy", "-Dartifact="+artifact, "-DoutputDirectory="+dir)
	cmd.Dir = dir
	if err := bed.Run(cmd); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("mvn copied %d files for %s, want one: %w", len(files), artifact, err)
	}
	return files[0], checkSum(files[0], sum)
}

func checkSum(path, want string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		return fmt.Errorf("%s has the SHA-256 %s, want %s", filepath.Base(path), got, want)
	}
	return nil
}

// Prerequisites returns an error that names all missing tools.
func Prerequisites(ctx context.Context) error {
	var missing error
	for _, need := range []struct {
		name    string
		command []string
	}{
		{"Java 17 or newer, with its compiler", []string{"javac", "--release", "17", "-version"}},
		{"Maven", []string{"mvn", "-version"}},
		{"Python with venv and pip", []string{"python3", "-c", "import ensurepip, pip, venv"}},
		{"a C compiler, for Hydra's database", []string{"cc", "--version"}},
		{"curl, for a recipe", []string{"curl", "--version"}},
		{"jq, for a recipe", []string{"jq", "--version"}},
	} {
		if err := exec.CommandContext(ctx, need.command[0], need.command[1:]...).Run(); err != nil {
			missing = errors.Join(missing, fmt.Errorf("missing: %s (%s: %w)", need.name, strings.Join(need.command, " "), err))
		}
	}
	return missing
}
