package mcpoauth

// settings are the mount's settings, as they are stored. settingsTable defines the fields written by operators.
type settings struct {
	// PublicURL is the mount's URL as authorization servers see it, without a trailing slash; empty until an operator
	// writes it.
	PublicURL string `json:"public_url,omitempty"`
}

// settingsTable defines the fields of settings.
var settingsTable = fieldTable[settings]{
	textField("public_url", func(s *settings) *string { return &s.PublicURL }, maxURL,
		"The mount's URL as authorization servers see it, with /v1, any namespace and the mount's path, as in https://vault.example.com/v1/mcp-oauth. It must be https, except for loopback. Default: none."),
}

// url returns the URL of a path in the mount; only the path if the mount's URL is unknown.
func (s settings) url(path string) string {
	if s.PublicURL == "" {
		return path
	}
	return s.PublicURL + "/" + path
}
