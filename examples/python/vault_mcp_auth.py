"""Access tokens that vault-plugin-mcp-oauth keeps in Vault, for MCP clients in Python 3.9 or newer.

Copy this file, or install it: pip install ./examples/python. It needs only the standard library.

With the official SDK, in three lines (2.x; for 1.x write httpx in place of httpx2):

    auth = VaultAuth(VaultToken.from_environment("mcp-oauth/token/files"), url)
    async with httpx2.AsyncClient(auth=auth, timeout=httpx2.Timeout(30, read=300)) as http_client:
        async with streamable_http_client(url, http_client=http_client) as streams:
            ...

If VAULT_ADDR is a Vault Agent or Vault Proxy with auto-auth, no Vault token is needed. Otherwise set VAULT_TOKEN,
and renew it. VAULT_NAMESPACE is used if it is set.
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
SLOW = 6  # requests if Vault answers 504: each waits 5 s for the authorization server

# Seconds between reads after a refresh, 1 s in total, as a standby that answers reads gets the new token later.
PAUSES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.2, 0.2, 0.2)

# The errors of a request: no connection, an HTTP error, half an answer, or an unexpected one.
TROUBLE = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)

log = logging.getLogger(__name__)


class VaultError(RuntimeError):
    """Vault gave no token. The message has the URL and Vault's errors, never a token."""


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: urllib would send the token to any host that it names."""

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
        self._headers = {"X-Vault-Request": "true"}  # Agents and Proxies may require it
        if vault_token:
            self._headers["X-Vault-Token"] = vault_token
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace
        self._lock = threading.Lock()  # held during requests to Vault
        self._held = None  # the held token: the last answer of the token path
        self._asked = time.monotonic(), time.time()  # when the held token was requested
        self._expires = 0.0  # seconds from then until it expires
        self._due = 0.0  # seconds from then until the next read
        self._failures = 0  # of reads, in a row
        self._refused = 0.0  # when the MCP server last refused the held token
        self._attempts = 0  # to replace refused tokens, in a row
        self._next_attempt = 0.0  # earliest time of the next of these attempts

    @classmethod
    def from_environment(cls, path):
        """Returns the token at a path of the Vault that VAULT_ADDR names."""
        return cls(
            os.environ["VAULT_ADDR"], path, os.environ.get("VAULT_TOKEN"), os.environ.get("VAULT_NAMESPACE")
        )

    def held(self):
        """Returns the held token if get would return it without a request to Vault, else None."""
        return self._held if self._elapsed() < min(self._due, self._expires) else None

    def get(self):
        """Returns a token that is valid now: a dict with authorization, token_id and more.

        When a read is due, one thread reads, and the others get the held token meanwhile. Raises VaultError if no
        valid token is held and Vault gives none.
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
        """Has Vault replace a token that the MCP server refused, and reports whether another token is held.

        Vault does not replace a token younger than 10 seconds. The wait between attempts doubles, also after a
        success, as an MCP server may refuse every token. It starts at 1 s again if no token is refused for
        LONGEST seconds.
        """
        now = time.monotonic()  # before waiting for another thread's attempt, whose outcome is shared
        with self._lock:
            if self._held["token_id"] != refused["token_id"]:
                return True  # another thread replaced it
            if now - self._refused > LONGEST:
                self._attempts = 0
            self._refused = max(now, self._refused)
            if now < self._next_attempt:
                return False
            longest = LONGEST
            try:
                self._read_successor(refused)
            except VaultError as error:
                longest = 30  # Vault may be back at any time
                log.warning("the MCP server refused token %s, and there is no other: %s", refused["token_id"], error)
            self._next_attempt = time.monotonic() + min(2**self._attempts, longest)
            self._attempts += 1
            return self._held["token_id"] != refused["token_id"]

    def _valid(self):
        return self._elapsed() < self._expires

    def _elapsed(self):
        """Returns the seconds since the held token was requested, by the clock that advanced more.

        The monotonic clock may stop while the machine sleeps, and the wall clock may be set back.
        """
        monotonic, wall = self._asked
        return max(time.monotonic() - monotonic, time.time() - wall)

    def _read_or_keep(self):
        """Reads the token path. If that fails, the held token is used until it expires."""
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
        """Reports the refused token to Vault, and reads until it gets the token that replaces it, or a newer one."""
        successor = self._ask(self._refresh_url, {"token_id": refused["token_id"]})["token_id"]
        if successor == refused["token_id"]:
            return  # Vault did not replace it
        self._read()
        for pause in PAUSES:
            if self._held["token_id"] == successor or is_successor(self._held, refused):
                break
            time.sleep(pause)
            self._read()

    def _ask(self, url, body=None):
        """Returns the data of Vault's answer to a request. After a 504 it sends the request again."""
        for attempt in range(1, SLOW + 1):
            try:
                data = self._send(url, body)["data"]
                data["token_id"]  # both paths return it; else LookupError
                return data
            except urllib.error.HTTPError as error:
                if error.code != 504 or attempt == SLOW:
                    raise VaultError(f"Vault answered {error.code} to {url}{reasons(error)}") from None
            except TROUBLE as error:
                raise VaultError(f"Vault: {url}: {error}") from error
            time.sleep(1)  # a load balancer may answer 504 at once

    def _send(self, url, body):
        headers = dict(self._headers)
        if body is not None:
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        with opener.open(urllib.request.Request(url, body, headers), timeout=TIMEOUT) as response:
            return json.load(response)


def reasons(error):
    """Returns the errors in Vault's answer, in one line; empty if another server answered."""
    try:
        return ": " + " ".join("; ".join(json.load(error)["errors"]).split())
    except TROUBLE:
        return ""


def left(token, now):
    """Returns the seconds for which a token can be used; now is when it was read, by this machine's clock.

    If this clock is ahead of Vault's, they are at least ttl; if it is behind, at most the lifetime. A ttl of 1,
    the least, is ignored if time is left by this clock, as the token may expire sooner.
    """
    expires, obtained = seconds(token["expires_at"]), seconds(token["last_vault_rotation"])
    remaining = min(expires - now, expires - obtained)
    return max(token["ttl"], remaining) if token["ttl"] > 1 or remaining <= 0 else remaining


def is_successor(token, refused):
    """Reports whether a token is not the refused one, and not older."""
    obtained = seconds(token["last_vault_rotation"])
    return token["token_id"] != refused["token_id"] and obtained >= seconds(refused["last_vault_rotation"])


def seconds(text):
    """Returns an RFC 3339 time in seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# httpx and httpx2 each accept only instances of their own class.
AUTH_CLASSES = tuple(
    importlib.import_module(name).Auth for name in ("httpx", "httpx2") if importlib.util.find_spec(name)
)


class VaultAuth(*AUTH_CLASSES):
    """Authorizes the requests of an httpx or httpx2 client, sync or async, to one MCP server.

    If the server answers 401, the request is sent again with another token, if Vault has one. Requests to other
    origins get no token.
    """

    def __init__(self, token, server):
        self._token = token
        self._server = server

    def sync_auth_flow(self, request):
        if not self._is_for_server(request):
            yield request
            return
        request.read()  # keeps the body, to send it again
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
    """Returns the origin of a URL, with its host in IDNA ASCII."""
    return url.scheme, url.raw_host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def authorized(request, token):
    request.headers["Authorization"] = token["authorization"]
    return request


async def in_thread(function, *arguments):
    """Calls a function that may wait for Vault in a thread, so that the event loop goes on."""
    import anyio.to_thread  # httpx and httpx2 need it too

    return await anyio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
