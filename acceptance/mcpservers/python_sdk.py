# An MCP server of the Python SDK: a protected resource if there is an issuer, else open to everybody.

from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.fastmcp import FastMCP

from serve import Tokens, issuer, resource, scopes, serve


class Verifier(TokenVerifier):
    def __init__(self):
        self.tokens = Tokens()

    async def verify_token(self, token):
        claims = self.tokens.claims(token)
        if claims is None:
            return None
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims.get("scope", "").split(),
            expires_at=claims["exp"],
            resource=resource,
        )


protected = {}
if issuer:
    protected = {
        "token_verifier": Verifier(),
        "auth": AuthSettings(issuer_url=issuer, resource_server_url=resource, required_scopes=scopes),
    }
mcp = FastMCP("weather", **protected)


@mcp.tool()
def forecast(city: str) -> str:
    """Tells tomorrow's weather."""
    return f"Tomorrow in {city}: sunny spells."


serve(mcp.streamable_http_app())
