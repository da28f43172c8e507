// Package version says which version of this project a binary is. The plugin and mcp-token-proxy share it.
package version

import (
	"cmp"
	"regexp"
	"runtime/debug"
)

// next is the version that is released next, and the only one that a tag may have.
const next = "v0.2.0"

// The linker sets these, by -X: release is the tag, in a release only; commit is the commit of another build.
var release, commit string

// String returns the version that the plugin reports to Vault, a semantic version with its "v": of a release its
// tag, of another build the next version with "-dev.<commit>", or with "-dev" if the commit isn't known. ".dirty" at its
// end says that the files were not those of the commit. The -version of a registration must be the same.
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
	recorded := map[string]string{}
	if info != nil {
		if commit == "" && tagged.MatchString(info.Main.Version) { // go install ...@v0.2.0
			return info.Main.Version
		}
		for _, setting := range info.Settings {
			recorded[setting.Key] = setting.Value
		}
	}
	version := next + "-dev"
	if commit = cmp.Or(commit, recorded["vcs.revision"]); commit != "" {
		version += "." + shortened.FindString(commit)
	}
	if recorded["vcs.modified"] == "true" {
		version += ".dirty"
	}
	return version
}

// shortened matches what a version has of a commit's hash: 12 digits, or more until one is a letter. A semantic version
// has no number that begins with 0.
var shortened = regexp.MustCompile(`^(0\d{11,}[a-f]?|.{1,12})`)
