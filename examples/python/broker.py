"""A broker in Python, with nothing but the standard library, written for Python 3.9 or newer.

It reads its access token from Vault, and lists the tools of an MCP server each time that you press
Enter:

    VAULT_ADDR=http://127.0.0.1:8100 python3 broker.py mcp-oauth/token/files https://files.example.com/mcp

VAULT_ADDR may be that of a Vault Agent or Vault Proxy with auto-auth, as here; then no Vault token is
needed. Otherwise set VAULT_TOKEN, and keep it renewed. VAULT_NAMESPACE is used where it is set.
"""

import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime

TIMEOUT = 10  # seconds for one request
LONGEST = 300  # seconds between two attempts to replace refused tokens
SLOW = 6  # requests while Vault answers 504: it still waits for the authorization server, 5 s each time

# Seconds between reads after a refresh, one in all: a standby of Vault that answers reads lags behind.
PAUSES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.2, 0.2, 0.2)

# What a request can fail with: no connection or an HTTP error, half an answer, or another than expected.
TROUBLE = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an error: urllib would send the token to wherever it leads."""

    def redirect_request(self, *args):
        return None


opener = urllib.request.build_opener(NoRedirects)


class VaultToken:
    """The access token that Vault holds at a path, such as mcp-oauth/token/files.

    Any number of threads may use it at once.
    """

    def __init__(self, address, path, vault_token=None, namespace=None):
        mount, separator, name = path.partition("/token/")
        if not separator:
            raise ValueError(f"{path} is not of the form <mount>/token/<server>")
        self._token_url = f"{address}/v1/{mount}/token/{name}"
        self._refresh_url = f"{address}/v1/{mount}/refresh/{name}"
        self._headers = {"X-Vault-Request": "true"}  # Agents and Proxies may ask for it
        if vault_token:
            self._headers["X-Vault-Token"] = vault_token
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace
        self._lock = threading.Lock()  # held while Vault is asked
        self._held = None  # the last answer of the token path
        self._asked = time.monotonic(), time.time()  # when it was asked for
        self._expires = 0.0  # how long after that it does
        self._due = 0.0  # how long after that to read again
        self._failures = 0  # of reads, in a row
        self._refused = 0.0  # when the MCP server last refused the held token
        self._attempts = 0  # to replace refused tokens, in a row
        self._next_attempt = 0.0  # when the next one is due

    def get(self):
        """Returns a token that is valid now: a dict with authorization, token_id and more.

        One thread asks Vault when that is due; the others go on with the held token meanwhile.
        """
        if self._elapsed() >= self._due and self._lock.acquire(blocking=not self._valid()):
            try:
                if self._elapsed() >= self._due:
                    self._read_or_keep()
            finally:
                self._lock.release()
        if not self._valid():
            raise RuntimeError("Vault has no valid token for us")
        return self._held

    def replace(self, refused):
        """Has Vault replace a token that the MCP server refused, and tells whether there is another.

        There is none while the token is younger than 10 seconds. The wait from one attempt to the next
        doubles, whatever came of it, as there are servers that refuse every token. It begins anew once
        none was refused for as long as it can get.
        """
        now = time.monotonic()  # before the wait for an attempt that is under way, whose outcome is shared
        with self._lock:
            if self._held["token_id"] != refused["token_id"]:
                return True  # another thread was faster
            if now - self._refused > LONGEST:
                self._attempts = 0
            self._refused = max(now, self._refused)
            if now < self._next_attempt:
                return False
            longest = LONGEST
            try:
                self._read_successor(refused)
            except TROUBLE as error:
                longest = 30  # it may be mended any time
                log(f"the refused token could not be replaced: {error}")
            self._next_attempt = time.monotonic() + min(2**self._attempts, longest)
            self._attempts += 1
            return self._held["token_id"] != refused["token_id"]

    def _valid(self):
        return self._elapsed() < self._expires

    def _elapsed(self):
        """Returns the seconds since the held token was asked for, by the clock that says more.

        The monotonic one may stand still while the machine sleeps, and the other may be set back.
        """
        monotonic, wall = self._asked
        return max(time.monotonic() - monotonic, time.time() - wall)

    def _read_or_keep(self):
        """Reads the token path. While that fails, the held token serves until it expires."""
        try:
            self._read()
        except TROUBLE as error:
            self._due = self._elapsed() + min(2**self._failures, 30)
            self._failures += 1
            if not self._valid():
                raise
            log(f"going on with the held token, since Vault gave no other: {error}")

    def _read(self):
        asked = time.monotonic(), time.time()
        data = self._ask(self._token_url)["data"]
        remaining = left(data, asked[1])
        self._held, self._asked, self._expires, self._due = data, asked, remaining, data["ttl"]
        self._failures = 0

    def _read_successor(self, refused):
        """Names the refused token to Vault, and reads the one in its place once a read brings it."""
        successor = self._ask(self._refresh_url, {"token_id": refused["token_id"]})["data"]["token_id"]
        if successor == refused["token_id"]:
            return  # Vault keeps it
        self._read()
        for pause in PAUSES:
            if self._held["token_id"] == successor:
                break
            time.sleep(pause)
            self._read()

    def _ask(self, url, body=None):
        """Sends a request to Vault, and sends it again while a fetch goes on."""
        for _ in range(SLOW - 1):
            try:
                return self._send(url, body)
            except urllib.error.HTTPError as error:
                if error.code != 504:
                    raise
            time.sleep(1)  # whatever is between may answer at once
        return self._send(url, body)

    def _send(self, url, body):
        headers = dict(self._headers)
        if body is not None:
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        with opener.open(urllib.request.Request(url, body, headers), timeout=TIMEOUT) as response:
            return json.load(response)


def left(token, now):
    """For how many seconds a token is good, read at a time by this machine's clock.

    Where that is ahead of Vault's, ttl holds, and where it is behind, the lifetime. A ttl of 1, the
    least, may be longer than what is left.
    """
    expires, obtained = seconds(token["expires_at"]), seconds(token["last_vault_rotation"])
    remaining = min(expires - now, expires - obtained)
    return max(token["ttl"], remaining) if token["ttl"] > 1 or remaining <= 0 else remaining


def seconds(text):
    """A time of RFC 3339, in seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def log(text):
    print(f"broker: {text}", file=sys.stderr, flush=True)


class McpServer:
    """An MCP server (Streamable HTTP) that wants an access token."""

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
        except urllib.error.HTTPError as error:
            if error.code == 404:  # the session is over; the next call begins another
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
            raise RuntimeError(f"{method}: {answer}")
        return answer["result"]

    def _post(self, message):
        """Sends a message. When the server refuses the token, it has it replaced and tries once more."""
        token = self._token.get()
        try:
            return self._send(message, token)
        except urllib.error.HTTPError as refusal:
            if refusal.code != 401 or not self._token.replace(token):
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
    token = VaultToken(
        os.environ["VAULT_ADDR"], path, os.environ.get("VAULT_TOKEN"), os.environ.get("VAULT_NAMESPACE")
    )
    server = McpServer(url, token)
    for _ in sys.stdin:
        try:
            print("tools:", *server.tools(), flush=True)
        except (RuntimeError, *TROUBLE) as error:
            print("failed:", error, flush=True)


if __name__ == "__main__":
    main()
