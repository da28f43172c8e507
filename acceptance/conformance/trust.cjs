// Preloaded into the suite. Its auth/wif-jwt-bearer signs the assertions itself, hands them to the client, and verifies
// them with its own key: a client that signs cannot pass. This makes it trust an issuer too, as authorization servers do:
// the signature is verified with the keys that the issuer publishes. Everything else is the suite's.
const { subtle } = globalThis.crypto;

// The suite imports globSync, which Node.js 22 brought; this scenario does not call it. getBuiltinModule, since require
// would end the list of names that fs exports before this one is in it.
process.getBuiltinModule("fs").globSync ??= () => { throw new Error("needs Node.js 22"); };
process.getBuiltinModule("module").syncBuiltinESMExports();

const issuers = process.env.TRUSTED_ISSUERS; // the beginning of their URLs
const verify = subtle.verify.bind(subtle);

subtle.verify = async (algorithm, key, signature, data) =>
  await verify(algorithm, key, signature, data) || await verifyByIssuer(algorithm, signature, data);

async function verifyByIssuer(algorithm, signature, data) {
  const [header, claims] = Buffer.from(data).toString().split(".").map((part) => JSON.parse(Buffer.from(part, "base64url")));
  if (!claims.iss.startsWith(issuers)) {
    return false;
  }
  const metadata = await get(`${claims.iss}/.well-known/openid-configuration`);
  if (metadata.issuer !== claims.iss) {
    return false;
  }
  const jwk = (await get(metadata.jwks_uri)).keys.find((k) => k.kid === header.kid);
  const key = await subtle.importKey("jwk", jwk, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);
  return verify(algorithm, key, signature, data);
}

async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) {
    throw new Error(`${url}: HTTP ${answer.status}`);
  }
  return answer.json();
}
