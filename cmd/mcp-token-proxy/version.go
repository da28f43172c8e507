package main

// version is the release's, and the plugin's: the two are released together. Importing the plugin for it would link
// all of it.
const version = "v0.1.0"
