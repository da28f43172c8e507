package main

import (
	"encoding/json"
	"io"
	"net/http"
)

// largestMessage is how much of a request is read for the id of its message, in bytes.
const largestMessage = 4 << 20

// serverError is the code of a JSON-RPC error that is the server's own (JSON-RPC 2.0 section 5.1).
const serverError = -32000

// refuse answers a request with a JSON-RPC error, which MCP clients show their user. id is that of the request's
// message; nil if it is not known.
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

// messageID returns the id of the JSON-RPC message in a request, nil if there is none.
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
