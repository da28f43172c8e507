"""A broker in Python 3.9 or newer, with only the standard library and vault_mcp_auth.py.

It reads its access token from Vault, and lists the tools of an MCP server each time you press Enter:

    VAULT_ADDR=http://127.0.0.1:8100 python3 broker.py mcp-oauth/token/files https://files.example.com/mcp

It uses plain HTTP to show what vault_mcp_auth does. With an MCP SDK, use VaultAuth of vault_mcp_auth.
"""

import json
import logging
import sys
import urllib.error
import urllib.request

from vault_mcp_auth import TIMEOUT, TROUBLE, VaultToken, opener


class McpError(RuntimeError):
    """The MCP server gave no answer, no result, or an HTTP error."""

    def __init__(self, text, status=None):
        super().__init__(f"the MCP server {text}")
        self.status = status


class McpServer:
    """An MCP server (Streamable HTTP) that requires an access token."""

    def __init__(self, url, token):
        self._url = url
        self._token = token
        self._session = {}  # headers of the session
        self._initialized = False
        self._requests = 0

    def tools(self):
        """Returns the names of the server's tools."""
        if not self._initialized:
            self._initialize()
        try:
            return [tool["name"] for tool in self._call("tools/list")["tools"]]
        except McpError as error:
            if error.status == 404:  # the session has ended; the next call begins another
                self._initialized = False
            raise

    def _initialize(self):
        self._session.clear()
        result = self._call(
            "initialize",
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "broker", "version": "1.0.0"},
            },
        )
        self._session["MCP-Protocol-Version"] = result["protocolVersion"]
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._initialized = True

    def _call(self, method, params=None):
        self._requests += 1
        message = {"jsonrpc": "2.0", "id": self._requests, "method": method, "params": params or {}}
        answer = self._post(message)
        if answer is None or "error" in answer:
            raise McpError(f"answered {method} with {answer}")
        return answer["result"]

    def _post(self, message):
        """Sends a message. If the server refuses the token, it sends the message once more with another token."""
        token = self._token.get()
        try:
            return self._send(message, token)
        except McpError as error:
            if error.status != 401 or not self._token.replace(token):
                raise
        return self._send(message, self._token.get())

    def _send(self, message, token):
        headers = {
            "Authorization": token["authorization"],
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **self._session,
        }
        request = urllib.request.Request(self._url, json.dumps(message).encode(), headers)
        try:
            return self._answer(request, message)
        except urllib.error.HTTPError as error:
            raise McpError(f"answered {error.code}", error.code) from None
        except TROUBLE as error:
            raise McpError(f"gave no answer: {error}") from error

    def _answer(self, request, message):
        with opener.open(request, timeout=TIMEOUT) as response:
            if "Mcp-Session-Id" in response.headers:
                self._session["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
            if response.headers.get_content_type() == "text/event-stream":
                return answer_in(response, message.get("id"))
            body = response.read()
            return json.loads(body) if body else None


def answer_in(stream, request_id):
    """Returns the answer to a request from a stream of server-sent events."""
    data = []
    for line in stream:
        line = line.decode().rstrip("\r\n")
        if line.startswith("data:"):
            data.append(line[len("data:") :])
        elif not line and data:
            message = json.loads("\n".join(data))
            data = []
            if message.get("id") == request_id and "method" not in message:
                return message
    return None


def main():
    path, url = sys.argv[1:]
    logging.basicConfig(format="broker: %(message)s")
    server = McpServer(url, VaultToken.from_environment(path))
    for _ in sys.stdin:
        try:
            print("tools:", *server.tools(), flush=True)
        except RuntimeError as error:  # a VaultError, or an McpError
            print("failed:", error, flush=True)


if __name__ == "__main__":
    main()
