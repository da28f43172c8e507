"""A broker on FastMCP, which takes a URL. For each line that it reads it calls the tool, in one session."""

import sys

import anyio
from fastmcp import Client


async def main(url):
    async with Client(url) as client:
        while await anyio.to_thread.run_sync(sys.stdin.readline):
            try:
                result = await client.call_tool("forecast", {"city": "Oslo"})
                print(result.content[0].text, flush=True)
            except Exception as error:
                print(f"failed: {error!r}", flush=True)


anyio.run(main, *sys.argv[1:])
