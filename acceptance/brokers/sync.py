"""A broker without an SDK, on a synchronous httpx or httpx2 client. For each line that it reads it initializes."""

import sys

from vault_mcp_auth import VaultAuth, VaultToken

try:
    import httpx2 as httpx
except ImportError:
    import httpx

MESSAGE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "sync", "version": "1"}},
}


def main(url, path):
    auth = VaultAuth(VaultToken.from_environment(path), url)
    with httpx.Client(auth=auth, headers={"Accept": "application/json, text/event-stream"}) as client:
        for _ in sys.stdin:
            answer = client.post(url, json=MESSAGE)
            print(httpx.__name__, answer.status_code, flush=True)


main(*sys.argv[1:])
