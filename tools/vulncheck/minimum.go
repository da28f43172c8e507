package main

import (
	"debug/buildinfo"
	"fmt"

	"golang.org/x/mod/semver"
)

// A fixed is the first version of a module without a vulnerability. id names the vulnerability in the Go
// vulnerability database.
type fixed struct{ module, version, id string }

// minimum are vulnerabilities in earlier builds, or in modules on which the plugin's secrets depend.
var minimum = []fixed{
	{"github.com/go-jose/go-jose/v4", "v4.0.5", "GO-2025-3485"},
	{"github.com/jackc/pgx/v5", "v5.9.2", "GO-2026-5004"},
	{"golang.org/x/oauth2", "v0.27.0", "GO-2025-3488"},
	{"google.golang.org/grpc", "v1.82.1", "GO-2026-6061"},
}

// modulesOf returns the versions of the modules linked into a binary.
func modulesOf(binary string) (map[string]string, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the build information of %s: %w", binary, err)
	}
	versions := map[string]string{}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		versions[module.Path] = module.Version
	}
	return versions, nil
}

// belowMinimum returns an error for each module linked in a version that is too old.
func belowMinimum(linked map[string]string, minimum []fixed) []error {
	var found []error
	for _, fix := range minimum {
		if version, ok := linked[fix.module]; ok && semver.Compare(version, fix.version) < 0 {
			found = append(found, fmt.Errorf("%s %s has %s, which %s fixes", fix.module, version, fix.id, fix.version))
		}
	}
	return found
}
