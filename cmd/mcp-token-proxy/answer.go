package main

import (
	"encoding/json"
	"io"
	"net/http"
)

// largestMessage bounds the part of a request read to find its message's id, in bytes.
const largestMessage = 4 << 20

// serverError is a code that JSON-RPC leaves to servers (JSON-RPC 2.0 section 5.1).
const serverError = -32000

// refuse answers a request with a JSON-RPC error, which MCP clients show to their user. id is the id of the request's
// message; nil if unknown.
func refuse(w http.ResponseWriter, status int, id json.RawMessage, message string) {
	type rpcError struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	if id == nil {
		id = json.RawMessage("null")
	}
	body, err := json.Marshal(struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   rpcError        `json:"error"`
	}{"2.0", id, rpcError{serverError, "mcp-token-proxy: " + message}})
	if err != nil {
		http.Error(w, http.StatusText(status), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// messageID returns the id of the JSON-RPC message in a request, or nil.
func messageID(r *http.Request) json.RawMessage {
	var message struct {
		ID json.RawMessage `json:"id"`
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, largestMessage))
	if err != nil || json.Unmarshal(body, &message) != nil {
		return nil
	}
	return message.ID
}
