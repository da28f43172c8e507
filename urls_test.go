package mcpoauth

import "testing"

func TestOrigin(t *testing.T) {
	for raw, want := range map[string]string{
		"https://as.example.com/token":          "https://as.example.com:443",
		"HTTPS://AS.Example.COM:443/other?q#f":  "https://as.example.com:443",
		"https://as.example.com:8443/token":     "https://as.example.com:8443",
		"http://as.example.com":                 "http://as.example.com:80",
		"https://[2001:DB8::1]/token":           "https://[2001:db8::1]:443",
		"https://as.example.com.attacker.com/":  "https://as.example.com.attacker.com:443",
		"https://f\u0130les.example.com/token":  "https://f\u0130les.example.com/token", // files.example.com in lower case
		"https://f%C4%B0les.example.com/token":  "https://f%C4%B0les.example.com/token",
		"https://\u212Aeys.example.com/token":   "https://\u212Aeys.example.com/token", // the kelvin sign
		"https://as.example.com:bad/token":      "https://as.example.com:bad/token",
		"mailto:as@example.com":                 "mailto:as@example.com",
		"https://as.example.com@attacker.com/a": "https://attacker.com:443",
	} {
		equal(t, "the origin of "+raw, origin(raw), want)
	}
}
