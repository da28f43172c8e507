package brokerauth

import (
	"fmt"
	"strings"
)

// refreshPath returns the refresh path for a token path of the form mount/token/server or mount/token/server/role.
func refreshPath(tokenPath string) (string, error) {
	parts := strings.Split(tokenPath, "/")
	n := len(parts)
	ofServer := n >= 3 && parts[n-2] == "token"
	ofRole := n >= 4 && parts[n-3] == "token"
	switch {
	case ofServer && ofRole:
		return "", fmt.Errorf("brokerauth: token path %q may belong to a server or to a role: Config.RefreshPath must be set", tokenPath)
	case ofServer:
		parts[n-2] = "refresh"
	case ofRole:
		parts[n-3] = "refresh"
	default:
		return "", fmt.Errorf("brokerauth: token path %q is not of the form mount/token/server or mount/token/server/role", tokenPath)
	}
	return strings.Join(parts, "/"), nil
}
