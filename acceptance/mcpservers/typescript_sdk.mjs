// A protected MCP server of the TypeScript SDK, with the options and the life that serve.py describes. As the
// SDK's examples do, it answers GET with 405 before it looks for a token, and publishes the authorization
// server's metadata at its own origin too.

import { createServer } from 'node:http';

import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js';
import { getOAuthProtectedResourceMetadataUrl, mcpAuthMetadataRouter } from '@modelcontextprotocol/sdk/server/auth/router.js';
import { InvalidTokenError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import express from 'express';
import { createRemoteJWKSet, jwtVerify } from 'jose';

const { issuer, resource: path = '/mcp', scopes = [] } = JSON.parse(process.argv[2]);
const app = express();
const server = createServer(app);
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const base = `http://127.0.0.1:${server.address().port}`;
const resourceURL = new URL(base + path);

const keys = createRemoteJWKSet(new URL(`${issuer}/jwks`));
const verifier = {
  async verifyAccessToken(token) {
    try {
      const { payload } = await jwtVerify(token, keys, { issuer, audience: resourceURL.href });
      return { token, clientId: payload.client_id, scopes: (payload.scope ?? '').split(' '), expiresAt: payload.exp };
    } catch (error) {
      console.error('refused a token:', error.code);
      throw new InvalidTokenError('not a token for this server');
    }
  },
};

app.get('/mcp', (_, response) => response.sendStatus(405));
app.use(mcpAuthMetadataRouter({
  oauthMetadata: {
    issuer,
    authorization_endpoint: `${issuer}/auth`,
    token_endpoint: `${issuer}/token`,
    response_types_supported: ['code'],
  },
  resourceServerUrl: resourceURL,
  scopesSupported: scopes,
}));
app.post('/mcp', requireBearerAuth({
  verifier,
  requiredScopes: scopes,
  resourceMetadataUrl: getOAuthProtectedResourceMetadataUrl(resourceURL),
}), express.json(), async (request, response) => {
  const mcp = new McpServer({ name: 'weather', version: '1.0.0' });
  mcp.registerTool('forecast', { description: "Tells tomorrow's weather." }, async () => ({
    content: [{ type: 'text', text: 'Tomorrow: sunny spells.' }],
  }));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on('close', () => { transport.close(); mcp.close(); });
  await mcp.connect(transport);
  await transport.handleRequest(request, response, request.body);
});

process.stdin.resume().on('end', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));
console.log(JSON.stringify({ url: `${base}/mcp`, resource: resourceURL.href }));
