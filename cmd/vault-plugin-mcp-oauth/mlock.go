package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/vault/sdk/helper/pluginutil"
)

// lockMemory locks the process's memory if Vault locks its own (VAULT_PLUGIN_MLOCK_ENABLED). The sdk's server would
// lock it too, but its error does not name the remedy, and Vault only answers "Unrecognized remote plugin message".
func lockMemory() error {
	err := pluginutil.OptionallyEnableMlock()
	if err == nil {
		return nil
	}
	file, pathErr := os.Executable()
	if pathErr != nil {
		file = "the plugin's file"
	}
	return fmt.Errorf("the plugin may not lock its memory (%w): run \"setcap cap_ipc_lock=+ep %s\" on this node, "+
		"or set disable_mlock = true in Vault's configuration", err, file)
}
