// Package version says which version of this project a binary is. The plugin and mcp-token-proxy share it.
package version

import (
	"regexp"
	"runtime/debug"
)

// next is the version that is released next, and the only one that a tag may have.
const next = "v0.2.0"

// The linker sets these, by -X: release is the tag, in a release only; commit is the commit of another build.
var release, commit string

// String returns the version that the plugin reports to Vault, a semantic version with its "v": of a release its
// tag, of another build the next version with "-dev.<commit>", or with "-dev" if the commit isn't known. The
// -version of a registration must be the same.
func String() string {
	info, _ := debug.ReadBuildInfo()
	return of(release, commit, info)
}

// tagged matches the version of a tag, and no pseudo-version.
var tagged = regexp.MustCompile(`^v\d+\.\d+\.\d+(-rc\.?\d+)?$`)

// of prefers what the linker set to what Go recorded: the releases are built without the latter.
func of(release, commit string, info *debug.BuildInfo) string {
	if release != "" {
		return release
	}
	if commit == "" && info != nil {
		if tagged.MatchString(info.Main.Version) { // go install ...@v0.2.0
			return info.Main.Version
		}
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				commit = setting.Value[:min(len(setting.Value), commitDigits)]
			}
		}
	}
	if commit == "" {
		return next + "-dev"
	}
	return next + "-dev." + commit
}

// commitDigits is how much of a commit's hash a version has, in the Makefile too.
const commitDigits = 12
