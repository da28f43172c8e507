"""Access tokens that vault-plugin-mcp-oauth keeps in Vault, for MCP clients in Python 3.9 or newer.

Copy this file, or install it: pip install ./examples/python. It needs nothing but the standard library.

With the official SDK, in three lines (2.x; for 1.x write httpx in place of httpx2):

    auth = VaultAuth(VaultToken.from_environment("mcp-oauth/token/files"), url)
    async with httpx2.AsyncClient(auth=auth, timeout=httpx2.Timeout(30, read=300)) as http_client:
        async with streamable_http_client(url, http_client=http_client) as streams:
            ...

VAULT_ADDR may be that of a Vault Agent or Vault Proxy with auto-auth; then no Vault token is needed. Otherwise
set VAULT_TOKEN, and keep it renewed. VAULT_NAMESPACE is used if it is set.
"""

import http.client
import importlib
import importlib.util
import json
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime

__all__ = ["VaultAuth", "VaultError", "VaultToken"]

TIMEOUT = 10  # seconds for one request
LONGEST = 300  # seconds between two attempts to replace refused tokens
SLOW = 6  # requests while Vault answers 504: it still waits for the authorization server, 5 s each time

# Seconds between reads after a refresh, one in all: a standby of Vault that answers reads lags behind.
PAUSES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.2, 0.2, 0.2)

# What a request can fail with: no connection or an HTTP error, half an answer, or another than expected.
TROUBLE = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)

log = logging.getLogger(__name__)


class VaultError(RuntimeError):
    """Vault gave no token. Says what it was asked, and what it answered; holds no token."""


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

    @classmethod
    def from_environment(cls, path):
        """Returns the token at a path of the Vault that VAULT_ADDR names."""
        return cls(
            os.environ["VAULT_ADDR"], path, os.environ.get("VAULT_TOKEN"), os.environ.get("VAULT_NAMESPACE")
        )

    def held(self):
        """Returns the held token if get would return it without asking Vault, else None."""
        return self._held if self._elapsed() < min(self._due, self._expires) else None

    def get(self):
        """Returns a token that is valid now: a dict with authorization, token_id and more.

        One thread asks Vault when that is due; the others go on with the held token meanwhile. Raises VaultError
        if none is held and Vault gives none.
        """
        if self._elapsed() >= self._due and self._lock.acquire(blocking=not self._valid()):
            try:
                if self._elapsed() >= self._due:
                    self._read_or_keep()
            finally:
                self._lock.release()
        if not self._valid():
            raise VaultError("Vault: the token has expired, and the next read is due in a moment")
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
            except VaultError as error:
                longest = 30  # the cause may be gone any time
                log.warning("the MCP server refused token %s, and there is no other: %s", refused["token_id"], error)
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
        except VaultError as error:
            self._due = self._elapsed() + min(2**self._failures, 30)
            self._failures += 1
            if not self._valid():
                raise
            log.warning("going on with the held token: %s", error)

    def _read(self):
        asked = time.monotonic(), time.time()
        data = self._ask(self._token_url)
        try:
            remaining = left(data, asked[1])
            due = data["ttl"] + 0
            data["authorization"], data["token_id"]
        except TROUBLE:
            raise VaultError(f"Vault: the answer of {self._token_url} is not a token") from None
        self._held, self._asked, self._expires, self._due = data, asked, remaining, due
        self._failures = 0

    def _read_successor(self, refused):
        """Names the refused token to Vault, and reads until a read brings the one in its place, or a newer one."""
        successor = self._ask(self._refresh_url, {"token_id": refused["token_id"]})["token_id"]
        if successor == refused["token_id"]:
            return  # Vault keeps it
        self._read()
        for pause in PAUSES:
            if self._held["token_id"] == successor or is_successor(self._held, refused):
                break
            time.sleep(pause)
            self._read()

    def _ask(self, url, body=None):
        """Sends a request to Vault, again while a fetch goes on, and returns the data of the answer."""
        for attempt in range(1, SLOW + 1):
            try:
                data = self._send(url, body)["data"]
                data["token_id"]  # of a token, and of what is in place of a refused one
                return data
            except urllib.error.HTTPError as error:
                if error.code != 504 or attempt == SLOW:
                    raise VaultError(f"Vault answered {error.code} to {url}{reasons(error)}") from None
            except TROUBLE as error:
                raise VaultError(f"Vault: {url}: {error}") from error
            time.sleep(1)  # whatever is between may answer at once

    def _send(self, url, body):
        headers = dict(self._headers)
        if body is not None:
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        with opener.open(urllib.request.Request(url, body, headers), timeout=TIMEOUT) as response:
            return json.load(response)


def reasons(error):
    """What Vault says of an error, in one line, if it is Vault that answered."""
    try:
        return ": " + " ".join("; ".join(json.load(error)["errors"]).split())
    except TROUBLE:
        return ""


def left(token, now):
    """For how many seconds a token is good, read at a time by this machine's clock.

    Where that is ahead of Vault's, ttl holds, and where it is behind, the lifetime. A ttl of 1, the
    least, may be longer than what is left.
    """
    expires, obtained = seconds(token["expires_at"]), seconds(token["last_vault_rotation"])
    remaining = min(expires - now, expires - obtained)
    return max(token["ttl"], remaining) if token["ttl"] > 1 or remaining <= 0 else remaining


def is_successor(token, refused):
    """Whether a token is another one than the refused, and no older."""
    obtained = seconds(token["last_vault_rotation"])
    return token["token_id"] != refused["token_id"] and obtained >= seconds(refused["last_vault_rotation"])


def seconds(text):
    """A time of RFC 3339, in seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# Each of the two libraries takes instances of its own class only.
AUTH_CLASSES = tuple(
    importlib.import_module(name).Auth for name in ("httpx", "httpx2") if importlib.util.find_spec(name)
)


class VaultAuth(*AUTH_CLASSES):
    """Authorizes the requests of an httpx or httpx2 client, sync or async, to one MCP server.

    A request that the server answers with a 401 is sent again with another token, if there is one. Requests to
    another origin pass as they are: a token is for one server.
    """

    def __init__(self, token, server):
        self._token = token
        self._server = server

    def sync_auth_flow(self, request):
        if not self._is_for_server(request):
            yield request
            return
        request.read()  # to be sent again
        token = self._token.get()
        response = yield authorized(request, token)
        if response.status_code == 401 and self._token.replace(token):
            yield authorized(request, self._token.get())

    async def async_auth_flow(self, request):
        if not self._is_for_server(request):
            yield request
            return
        await request.aread()
        token = self._token.held() or await in_thread(self._token.get)
        response = yield authorized(request, token)
        if response.status_code == 401 and await in_thread(self._token.replace, token):
            yield authorized(request, await in_thread(self._token.get))

    def _is_for_server(self, request):
        return origin(request.url) == origin(type(request.url)(self._server))


def origin(url):
    """The origin of a URL, its host in IDNA ASCII."""
    return url.scheme, url.raw_host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def authorized(request, token):
    request.headers["Authorization"] = token["authorization"]
    return request


async def in_thread(function, *arguments):
    """Calls a function that may wait for Vault, without holding up the event loop."""
    import anyio.to_thread  # which both libraries need

    return await anyio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
