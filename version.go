package mcpoauth

// Version is the version that the plugin reports to Vault: a semantic version with
// its "v", as Vault wants it. A -version given at registration must be the same.
const Version = "v0.1.0"
