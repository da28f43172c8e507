package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hashicorp/vault/api"
)

// An Environment is what figures depend on.
type Environment struct {
	Date  string `json:"date"`
	Go    string `json:"go"`
	Vault string `json:"vault"`
	CPUs  int    `json:"cpus"`
}

// Here describes the machine and a Vault.
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
	}, nil
}

func (e Environment) String() string {
	return fmt.Sprintf("Vault %s, %s, %d CPUs, %s", e.Vault, e.Go, e.CPUs, e.Date)
}

// WriteJSON writes results to the named file in dir, which it makes where there is none. An empty
// dir is nowhere.
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
