package servers

import (
	"archive/zip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

const (
	keycloakVersion = "26.7.3"
	keycloakSum     = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f" // SHA-256 of the zip
)

// keycloakFeatures are the features of the two installations. They are separate, because some features change others.
var keycloakFeatures = map[string][]string{
	"default":             {"client-secret-rotation", "client-auth-federated", "jwt-authorization-grant", "cimd"},
	"resource-indicators": {"client-secret-rotation", "client-auth-federated", "jwt-authorization-grant", "cimd", "resource-indicators"},
}

const keycloakAdministrator = "administrator" // client id of an administrator in the realm master

// installKeycloak returns a directory in the user's cache directory. It has a Keycloak for each entry of
// keycloakFeatures. database.mv.db has an empty realm master, because setting it up is slow, and secret has the
// administrator's client secret.
func installKeycloak(ctx context.Context, log func(string, ...any)) (string, error) {
	pin := fmt.Sprint(keycloakSum, keycloakFeatures)
	return bed.Cached(ctx, "keycloak-"+keycloakVersion+"-", []byte(pin), log, func(dir string) error {
		log("fetching Keycloak %s once, about 175 MB, and building it", keycloakVersion)
		return bed.WithProgress("getting Keycloak", log, func() error { return makeKeycloak(ctx, dir) })
	})
}

func makeKeycloak(ctx context.Context, dir string) error {
	fetched, err := os.MkdirTemp("", "keycloak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fetched)
	archive, err := fetchArtifact(ctx, "org.keycloak:keycloak-quarkus-dist:"+keycloakVersion+":zip", keycloakSum, fetched)
	if err != nil {
		return err
	}
	for name, features := range keycloakFeatures {
		home := filepath.Join(dir, name)
		if err := unpack(archive, home); err != nil {
			return err
		}
		// Settings for client certificates and features take effect at the build.
		build := exec.CommandContext(ctx, filepath.Join(home, "bin", "kc.sh"), "build",
			"--db=dev-file", "--https-client-auth=request", "--features="+strings.Join(features, ","))
		if err := bed.Run(build); err != nil {
			return err
		}
	}
	secret := rand.Text()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600); err != nil {
		return err
	}
	// This command creates the administrator and the database.
	bootstrap := keycloakCommand(filepath.Join(dir, "default"), filepath.Join(dir, "database"), "bootstrap-admin", "service", "--optimized",
		"--client-id="+keycloakAdministrator, "--client-secret:env=ADMINISTRATOR_SECRET")
	bootstrap.Env = append(os.Environ(), "ADMINISTRATOR_SECRET="+secret)
	return bed.Run(bootstrap)
}

// keycloakCommand prepares a command of kc.sh that runs Java without a shell around it, so that the process can be
// stopped.
func keycloakCommand(home, database, command string, args ...string) *exec.Cmd {
	java := []string{
		"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms64m", "-Xmx512m", "-Dfile.encoding=UTF-8",
		"-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
		"--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
		"--add-opens=java.base/java.security=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED",
		"-Dkc.home.dir=" + home, "-Djboss.server.config.dir=" + filepath.Join(home, "conf"),
		"-Djava.util.logging.manager=org.jboss.logmanager.LogManager", "-Dpicocli.disable.closures=true",
		"-cp", filepath.Join(home, "lib", "quarkus-run.jar"), "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
		command, "--db-url=jdbc:h2:file:" + database + ";NON_KEYWORDS=VALUE",
	}
	return exec.Command("java", append(java, args...)...)
}

// unpack unpacks a zip archive into dir, without its top directory.
func unpack(archive, dir string) error {
	from, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer from.Close()
	for _, entry := range from.File {
		_, name, _ := strings.Cut(entry.Name, "/")
		if !filepath.IsLocal(name) && name != "" {
			return fmt.Errorf("%s holds %q", filepath.Base(archive), entry.Name)
		}
		path := filepath.Join(dir, name)
		if entry.FileInfo().IsDir() {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = unpackFile(entry, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func unpackFile(entry *zip.File, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	from, err := entry.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, entry.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
