package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A transcript prints steps, commands, answers and the results of checks.
type transcript struct {
	out     io.Writer
	printed bytes.Buffer // everything printed, for the search for secrets
	steps   int
	failed  []string // claims that did not hold
	vault   *bed.Vault
	dir     string // working directory of the commands
}

func (t *transcript) printf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	t.printed.WriteString(text)
	_, _ = io.WriteString(t.out, text)
}

// named replaces "Vault" in a text by the running server's name.
func (t *transcript) named(text string) string {
	return strings.ReplaceAll(text, "Vault", string(t.vault.Product))
}

// step begins a new step, which text describes in a sentence or two.
func (t *transcript) step(title, text string) {
	t.steps++
	title, text = t.named(title), t.named(text)
	t.printf("\n== %d. %s\n", t.steps, title)
	if text != "" {
		t.printf("   %s\n", strings.ReplaceAll(text, "\n", "\n   "))
	}
}

// check prints a claim and whether it holds.
func (t *transcript) check(held bool, claim string, args ...any) {
	claim = t.named(fmt.Sprintf(claim, args...))
	if held {
		t.printf("   [ok] %s\n", claim)
		return
	}
	t.printf("   [FAILED] %s\n", claim)
	t.failed = append(t.failed, claim)
}

// verdict ends the transcript, with an error if a claim did not hold.
func (t *transcript) verdict() error {
	if len(t.failed) == 0 {
		t.printf("\nAll held.\n")
		return nil
	}
	t.printf("\nThese claims did not hold:\n")
	for _, claim := range t.failed {
		t.printf("  %s\n", claim)
	}
	return fmt.Errorf("%d of the claims above did not hold", len(t.failed))
}

// show prints the content of a file or an answer, indented.
func (t *transcript) show(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		t.printf("   %s", shorten(line))
	}
}

// run runs vault or bao with a token, shows the command and its output, and returns the output. who names the holder
// of the token, unless it is the operator.
func (t *transcript) run(ctx context.Context, who, token string, args ...string) (string, error) {
	prefix := "$ "
	if who != "" {
		prefix += fmt.Sprintf("VAULT_TOKEN=$%s ", who)
	}
	t.command(prefix, args)
	return t.carryOut(ctx, token, "", args)
}

// runWithSecret is run for the operator, with the secret in a file as the command's standard input.
func (t *transcript) runWithSecret(ctx context.Context, file string, args ...string) (string, error) {
	t.command("$ tr -d '\\n' < "+file+" | ", args)
	secret, err := os.ReadFile(filepath.Join(t.dir, file))
	if err != nil {
		return "", err
	}
	return t.carryOut(ctx, t.vault.RootToken, strings.ReplaceAll(string(secret), "\n", ""), args)
}

// runWithText is run for the operator, with a text as the command's standard input.
func (t *transcript) runWithText(ctx context.Context, text string, args ...string) (string, error) {
	t.command("$ ", append(args[:len(args):len(args)], "<<'EOF'"))
	t.show(text + "EOF\n")
	return t.carryOut(ctx, t.vault.RootToken, text, args)
}

// carryOut runs a command, and shows and returns its output.
func (t *transcript) carryOut(ctx context.Context, token, stdin string, args []string) (string, error) {
	cmd := t.vault.CLI(ctx, token, args...)
	cmd.Dir = t.dir
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	t.show(string(out))
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.printf("   %v\n", err)
	}
	return strings.TrimSpace(string(out)), err
}

// command shows a command after a prompt, with a line for each key=value if there are several.
func (t *transcript) command(prompt string, args []string) {
	var line strings.Builder
	line.WriteString(prompt + t.vault.Product.Command())
	for _, arg := range args {
		if len(args) > 5 && strings.Contains(arg, "=") && !strings.HasPrefix(arg, "-") {
			line.WriteString(" \\\n     ")
		}
		line.WriteString(" " + arg)
	}
	t.printf("   %s\n", line.String())
}

// operator runs a command of the operator, which must succeed, and returns its output.
func (t *transcript) operator(ctx context.Context, args ...string) string {
	return must(t.run(ctx, "", t.vault.RootToken, args...))
}

var jwt = regexp.MustCompile(`(eyJ[\w-]{5})[\w-]*\.[\w-]+\.[\w-]+`)

// shorten cuts each access token to its first characters, which are the same for all tokens.
func shorten(text string) string { return jwt.ReplaceAllString(text, "$1...") }
