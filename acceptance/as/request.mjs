// What a token request was and how it was answered, in words that may be logged.

export function describe(ctx, time) {
  const params = ctx.oidc?.params ?? {};
  const body = ctx.oidc?.body ?? {};
  const issued = ctx.status === 200 ? ctx.oidc?.entities?.ClientCredentials : undefined;
  return {
    time: time.toISOString(),
    client_id: ctx.oidc?.client?.clientId ?? body.client_id ?? '',
    auth_method: authMethod(ctx, body),
    assertion: describeAssertion(body.client_assertion),
    status: ctx.status,
    error: ctx.body?.error ?? '',
    resource: [].concat(params.resource ?? []).join(' '),
    scope: params.scope ?? '',
    granted_scope: issued?.scope ?? '',
    // The identifier of an opaque token is the token itself.
    jti: issued?.format === 'jwt' ? issued.jti : '',
  };
}

function authMethod(ctx, body) {
  if (/^basic /i.test(ctx.get('authorization'))) return 'client_secret_basic';
  if (body.client_assertion) return 'private_key_jwt';
  if (body.client_secret) return 'client_secret_post';
  if (ctx.socket.getPeerX509Certificate?.()) return 'tls_client_auth';
  return 'none';
}

// describeAssertion tells of a client assertion (RFC 7523) what is no secret. Without its signature
// it would be of no use to anybody, but the whole is not to be looked at either.
function describeAssertion(assertion) {
  if (!assertion) return undefined;
  try {
    const [header, claims] = assertion.split('.').slice(0, 2)
      .map((part) => JSON.parse(Buffer.from(part, 'base64url')));
    return {
      alg: header.alg,
      kid: header.kid,
      typ: header.typ,
      x5t: header['x5t#S256'],
      aud: claims.aud,
      jti: claims.jti,
      lifetime: claims.exp - claims.iat,
    };
  } catch {
    return undefined;
  }
}
