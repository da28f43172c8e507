package mcpoauth

// settings are the mount's own, as they are stored. settingsTable defines the fields that operators write.
type settings struct {
	// PublicURL is the mount's URL as authorization servers see it, without a slash at its end; empty if the
	// operator has not written it.
	PublicURL string `json:"public_url,omitempty"`
}

// settingsTable defines the fields of settings.
var settingsTable = fieldTable[settings]{
	textField("public_url", func(s *settings) *string { return &s.PublicURL }, maxURL,
		"The mount's URL as authorization servers see it, with /v1, the namespace and the mount's path, as in https://vault.example.com/v1/mcp-oauth. https, except for loopback. Default: none."),
}

// url is the URL of a path of the mount: the path alone if the mount's URL is not known.
func (s settings) url(path string) string {
	if s.PublicURL == "" {
		return path
	}
	return s.PublicURL + "/" + path
}
