package servers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The error names all missing tools at once.
func TestPrerequisitesNameMissingTools(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	bed.WantError(t, Prerequisites(t.Context()), "missing: Java 17", "missing: Maven", "missing: Python with venv and pip")
}

// A downloaded artifact is executed, so its content must match the pin.
func TestAnotherArtifactIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "artifact.zip")
	bed.OK(t, os.WriteFile(file, []byte("abc"), 0o600))
	const sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-2 appendix B.1
	bed.OK(t, checkSum(file, sum))
	bed.WantError(t, checkSum(file, keycloakSum), "artifact.zip has the SHA-256 "+sum)
}
