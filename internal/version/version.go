// Package version returns the version of a binary of this project, the plugin or mcp-token-proxy.
package version

import (
	"cmp"
	"regexp"
	"runtime/debug"
)

// next is the next version to be released, and the only one allowed for a tag.
const next = "v0.2.0"

// The linker sets these, by -X: release is the tag, in a release only; commit is the commit of another build.
var release, commit string

// String returns the version that the plugin reports to Vault, a semantic version with its "v". For a release it is
// the tag; for another build the next version with "-dev.<commit>", or "-dev" if the commit is unknown, and ".dirty"
// if files differed from the commit. The -version of a registration must be the same.
func String() string {
	info, _ := debug.ReadBuildInfo()
	return of(release, commit, info)
}

// tagged matches the version of a tag, but not a pseudo-version.
var tagged = regexp.MustCompile(`^v\d+\.\d+\.\d+(-rc\.?\d+)?$`)

// of prefers the linker's values to those recorded by Go, which releases are built without.
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

// shortened matches the part of a commit's hash that a version uses: 12 characters. If these are a number that begins
// with 0, it continues to the next letter: a semantic version has no numbers with a leading zero.
var shortened = regexp.MustCompile(`^(0\d{11,}[a-f]?|.{1,12})`)
