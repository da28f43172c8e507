"""A broker on the official SDK, 1.x or 2.x. For each line that it reads it calls the tool, in one session.

With a token path it authorizes its requests itself, by vault_mcp_auth; without, it takes the URL as it is.
"""

import sys

import anyio
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

try:
    import httpx2 as httpx
except ImportError:
    import httpx


async def main(url, path=None):
    auth = None
    if path:
        from vault_mcp_auth import VaultAuth, VaultToken

        auth = VaultAuth(VaultToken.from_environment(path), url)
    async with httpx.AsyncClient(auth=auth, timeout=httpx.Timeout(30, read=300)) as http_client:
        async with streamable_http_client(url, http_client=http_client) as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                await session.initialize()
                while await anyio.to_thread.run_sync(sys.stdin.readline):
                    try:
                        result = await session.call_tool("forecast", {"city": "Oslo"})
                        print(result.content[0].text, flush=True)
                    except Exception as error:
                        print(f"failed: {error!r}", flush=True)


anyio.run(main, *sys.argv[1:])
