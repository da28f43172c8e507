package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// An Environment describes the machine and the versions on which figures depend.
type Environment struct {
	Date  string `json:"date"`
	Go    string `json:"go"`
	Vault string `json:"vault"`
	CPUs  int    `json:"cpus"`
	// Processor is the processor's model, if known.
	Processor string `json:"processor,omitempty"`
	// Commit is the project's, with "-dirty" if files have changed since.
	Commit string `json:"commit,omitempty"`
}

// Here describes this machine and a Vault.
func Here(ctx context.Context, client *api.Client) (Environment, error) {
	health, err := client.Sys().HealthWithContext(ctx)
	if err != nil {
		return Environment{}, err
	}
	return Environment{
		Date:  time.Now().UTC().Format(time.DateOnly),
		Go:    runtime.Version(),
		Vault: health.Version,
		CPUs:  runtime.NumCPU(),

		Processor: processor(),
		Commit:    commit(ctx),
	}, nil
}

var processorModel = regexp.MustCompile(`(?m)^model name\s*: (.*)$`)

func processor() string {
	content, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	if model := processorModel.FindSubmatch(content); model != nil {
		return string(model[1])
	}
	return ""
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func (e Environment) String() string {
	return fmt.Sprintf("Vault %s, %s, %d CPUs, %s", e.Vault, e.Go, e.CPUs, e.Date)
}

// WriteJSON writes results to a file in dir, and makes dir if it is missing. If dir is empty, it writes nothing.
func WriteJSON(dir, name string, results any) error {
	if dir == "" {
		return nil
	}
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), append(text, '\n'), 0o644)
}
