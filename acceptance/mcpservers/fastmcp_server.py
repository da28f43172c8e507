# A protected MCP server of FastMCP.

from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.auth.providers.jwt import JWTVerifier
from pydantic import AnyHttpUrl

from serve import base, issuer, resource, scopes, serve

mcp = FastMCP(
    "weather",
    auth=RemoteAuthProvider(
        token_verifier=JWTVerifier(
            jwks_uri=issuer + "/jwks", issuer=issuer, audience=resource, algorithm="RS256", required_scopes=scopes
        ),
        authorization_servers=[AnyHttpUrl(issuer)],
        base_url=base,
    ),
)


@mcp.tool
def forecast(city: str) -> str:
    """Tells tomorrow's weather."""
    return f"Tomorrow in {city}: sunny spells."


serve(mcp.http_app(path="/mcp"))
