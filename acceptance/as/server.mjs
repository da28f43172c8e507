// The authorization server of the bed: oidc-provider with resource indicators and short-lived JWT
// access tokens, and beside it, on a port of its own, a control endpoint by which a test changes
// clients and resources while the server runs and reads which token requests it has seen.
//
// Options come as one JSON object in the first argument:
//
//   port       port of the authorization server, 0 for a free one
//   key_file   where the signing key is kept, so that a restarted server signs with the same key
//   known_file clients and resources from the start, as the control endpoint takes them: {clients, resources}
//   scopes     scopes that need the client's permission (others are dropped where a resource lacks them)
//   tls        files for the HTTPS listener that tls_client_auth needs: {key, cert, ca}, in PEM
//
// Once listening it prints one line, {"issuer": ..., "mtls": ..., "control": ...}, and ends on SIGTERM
// or when its standard input closes, so that it does not outlive the test that started it. It logs
// neither secrets nor assertions nor tokens.

import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTLSServer } from 'node:https';

import { certificateChecks } from './certificate.mjs';
import { control } from './control.mjs';
import { describe } from './request.mjs';
import { State } from './state.mjs';

// Standard output carries the line above and nothing else. oidc-provider's notices are about
// production use (Node's version, interaction pages that nobody opens here) and would only hide
// what matters in the log of a failed test.
const quiet = (line) => typeof line === 'string' && /^oidc-provider (NOTICE|WARNING):/.test(line);
console.info = (...args) => quiet(args[0]) || console.error(...args);
console.warn = (...args) => quiet(args[0]) || console.error(...args);
const { Provider, errors } = await import('oidc-provider');

const options = JSON.parse(process.argv[2] ?? '{}');
const state = new State();
const known = options.known_file ? JSON.parse(readFileSync(options.known_file, 'utf8')) : {};
for (const client of known.clients ?? []) state.setClient(client);
for (const resource of known.resources ?? []) state.setResource(resource);

const server = createServer();
await listen(server, options.port ?? 0);
const issuer = `http://127.0.0.1:${server.address().port}`;

// Whether a client certificate will do is for the token endpoint to say, in OAuth's words: a
// handshake that fails would not tell which client it was.
const tlsServer = createTLSServer({
  key: readFileSync(options.tls.key),
  cert: readFileSync(options.tls.cert),
  ca: readFileSync(options.tls.ca),
  requestCert: true,
  rejectUnauthorized: false,
});
await listen(tlsServer, 0);
const mtls = `https://127.0.0.1:${tlsServer.address().port}`;

const provider = new Provider(issuer, {
  adapter: state.adapter(),
  jwks: { keys: [signingKey(options.key_file)] },
  scopes: options.scopes ?? [],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth',
    'self_signed_tls_client_auth'],
  enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA', 'Ed25519'] },
  discovery: { mtls_endpoint_aliases: { token_endpoint: `${mtls}/token` } },
  fetch: fetchKeys,
  responseTypes: [],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    mTLS: { enabled: true, tlsClientAuth: true, selfSignedTlsClientAuth: true, ...certificateChecks },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo(ctx, resource) {
        const known = state.resources.get(resource);
        if (!known) throw new errors.InvalidTarget();
        return {
          audience: resource,
          scope: known.scope ?? '',
          accessTokenFormat: 'jwt',
          accessTokenTTL: known.ttl,
          jwt: { sign: { alg: 'RS256' } },
        };
      },
    },
  },
});

provider.on('server_error', (ctx, err) => console.error(err));

provider.use(async (ctx, next) => {
  const time = new Date();
  await next();
  if (ctx.path !== '/token' || ctx.method !== 'POST') return;
  state.requests.push(describe(ctx, time));
  const { delay_ms: delay } = state.resources.get(ctx.oidc?.params?.resource) ?? {};
  if (delay) await new Promise((resolve) => { setTimeout(resolve, delay); });
});

server.on('request', provider.callback());
tlsServer.on('request', provider.callback());

const controlServer = createServer(control(state));
await listen(controlServer, 0);

process.stdout.write(`${JSON.stringify({
  issuer,
  mtls,
  control: `http://127.0.0.1:${controlServer.address().port}`,
})}\n`);

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
process.stdin.on('error', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));

// fetchKeys fetches a client's jwks_uri. oidc-provider's own way there closes connections to loopback,
// where everything in the bed is.
async function fetchKeys(url, { dispatcher, ...rest }) {
  const time = new Date();
  const response = await fetch(url, rest);
  state.keyFetches.push({ time: time.toISOString(), url, status: response.status });
  return response;
}

function signingKey(file) {
  if (file && existsSync(file)) return JSON.parse(readFileSync(file, 'utf8'));
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: 'bed' };
  if (file) writeFileSync(file, JSON.stringify(key), { mode: 0o600 });
  return key;
}

function listen(srv, port) {
  return new Promise((resolve, reject) => {
    srv.once('error', reject);
    srv.listen(port, '127.0.0.1', resolve);
  });
}
