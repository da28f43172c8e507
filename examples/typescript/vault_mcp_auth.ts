// Access tokens that vault-plugin-mcp-oauth keeps in Vault, for MCP clients in TypeScript or JavaScript.
//
// Copy this file. It needs only Node.js. With the official SDK, in three lines:
//
//   const token = VaultToken.fromEnvironment("mcp-oauth/token/files");
//   const transport = new StreamableHTTPClientTransport(new URL(url), { fetch: vaultFetch(token, url) });
//   await client.connect(transport);
//
// If VAULT_ADDR is a Vault Agent or Vault Proxy with auto-auth, no Vault token is needed. Otherwise set VAULT_TOKEN,
// and renew it. VAULT_NAMESPACE is used if it is set.

import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

const timeout = 10_000; // milliseconds for one request
const longest = 300_000; // milliseconds between two attempts to replace refused tokens
const slow = 6; // requests if Vault answers 504: each waits 5 s for the authorization server

// Milliseconds between reads after a refresh, 1 s in total, as a standby that answers reads gets the new token later.
const pauses = [10, 20, 40, 80, 160, 200, 200, 200];

/** The fields of the token path's answer that this file uses. */
export interface Token {
  authorization: string;
  expires_at: string; // RFC 3339, by Vault's clock
  last_vault_rotation: string; // when the token was obtained, in the same form
  token_id: string;
  ttl: number; // seconds to wait before the next read
}

/** Vault gave no token. The message has the URL and Vault's errors, never a token. */
export class VaultError extends Error {
  override name = "VaultError";
}

/** The access token that Vault holds at a path, such as mcp-oauth/token/files. */
export class VaultToken {
  #tokenURL: string;
  #refreshURL: string;
  #headers: Record<string, string> = { "X-Vault-Request": "true" }; // Agents and Proxies may require it
  #held?: Token; // the held token: the last answer of the token path
  #asked = clocks(); // when the held token was requested
  #expires = 0; // milliseconds from then until it expires
  #due = 0; // milliseconds from then until the next read
  #failures = 0; // of reads, in a row
  #failure?: VaultError; // of the last failed read
  #reading?: Promise<void>;
  #refused = 0; // when the MCP server last refused the held token, by the monotonic clock
  #attempts = 0; // to replace refused tokens, in a row
  #nextAttempt = 0; // earliest time of the next of these attempts
  #replacing?: Promise<void>;

  constructor(address: string, path: string, vaultToken?: string, namespace?: string) {
    const [, mount, name] = /^(.+?)\/token\/(.+)$/.exec(path) ?? [];
    if (!name) throw new Error(`${path} is not of the form <mount>/token/<server>`);
    this.#tokenURL = `${address}/v1/${mount}/token/${name}`;
    this.#refreshURL = `${address}/v1/${mount}/refresh/${name}`;
    if (vaultToken) this.#headers["X-Vault-Token"] = vaultToken;
    if (namespace) this.#headers["X-Vault-Namespace"] = namespace;
  }

  /** Returns the token at a path of the Vault that VAULT_ADDR names. */
  static fromEnvironment(path: string): VaultToken {
    const { VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE } = process.env;
    if (!VAULT_ADDR) throw new Error("VAULT_ADDR is not set");
    return new VaultToken(VAULT_ADDR, path, VAULT_TOKEN, VAULT_NAMESPACE);
  }

  /**
   * Returns a token that is valid now. It waits for Vault only if no valid token is held, and fails with a VaultError
   * if Vault gives none.
   */
  async get(): Promise<Token> {
    if (this.#elapsed() >= this.#due) {
      this.#reading ??= this.#readOrKeep().finally(() => (this.#reading = undefined));
    }
    if (!this.#valid()) await this.#reading;
    if (!this.#held || !this.#valid()) throw this.#failure ?? new VaultError("Vault: the token has expired");
    return this.#held;
  }

  /**
   * Has Vault replace a token that the MCP server refused, and reports whether another token is held. Vault does not
   * replace a token younger than 10 seconds. The wait between attempts doubles, also after a success, as an MCP server
   * may refuse every token. It starts at 1 s again if no token is refused for as long as the longest wait.
   */
  async replace(refused: Token): Promise<boolean> {
    if (this.#held?.token_id === refused.token_id) {
      const { monotonic } = clocks();
      if (monotonic - this.#refused > longest) this.#attempts = 0;
      this.#refused = monotonic;
      if (monotonic >= this.#nextAttempt) {
        this.#replacing ??= this.#replace(refused).finally(() => (this.#replacing = undefined));
      }
      await this.#replacing;
    }
    return this.#held?.token_id !== refused.token_id;
  }

  async #replace(refused: Token): Promise<void> {
    let most = longest;
    try {
      await this.#readSuccessor(refused);
    } catch (error) {
      most = 30_000; // Vault may be back at any time
      console.error(`the MCP server refused token ${refused.token_id}, and there is no other: ${reason(error)}`);
    }
    this.#nextAttempt = clocks().monotonic + Math.min(2 ** this.#attempts * 1000, most);
    this.#attempts++;
  }

  /** Reports the refused token to Vault, and reads until it gets the token that replaces it, or a newer one. */
  async #readSuccessor(refused: Token): Promise<void> {
    const successor = await this.#ask(this.#refreshURL, { token_id: refused.token_id });
    if (successor.token_id === refused.token_id) return; // Vault did not replace it
    await this.#reading; // this read may return the refused token again
    await this.#read();
    for (const pause of pauses) {
      if (this.#held?.token_id === successor.token_id || isSuccessor(this.#held, refused)) break;
      await sleep(pause);
      await this.#read();
    }
  }

  #valid(): boolean {
    return this.#elapsed() < this.#expires;
  }

  /**
   * Returns the milliseconds since the held token was requested, by the clock that advanced more: the monotonic clock
   * may stop while the machine sleeps, and the wall clock may be set back.
   */
  #elapsed(): number {
    const now = clocks();
    return Math.max(now.monotonic - this.#asked.monotonic, now.wall - this.#asked.wall);
  }

  /** Reads the token path. If that fails, the held token is used until it expires. */
  async #readOrKeep(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      this.#due = this.#elapsed() + Math.min(2 ** this.#failures, 30) * 1000;
      this.#failures++;
      this.#failure = error instanceof VaultError ? error : new VaultError(`Vault: ${reason(error)}`);
      if (this.#valid()) console.error(`going on with the held token: ${this.#failure.message}`);
    }
  }

  async #read(): Promise<void> {
    const asked = clocks();
    const data = (await this.#ask(this.#tokenURL)) as Token;
    const remaining = left(data, asked.wall);
    if (Number.isNaN(remaining)) throw new VaultError(`Vault: the answer of ${this.#tokenURL} is not a token`);
    this.#held = data;
    this.#asked = asked;
    this.#expires = remaining;
    this.#due = data.ttl * 1000;
    this.#failures = 0;
  }

  /** Returns the data of Vault's answer to a request. After a 504 it sends the request again. */
  async #ask(url: string, body?: unknown): Promise<Pick<Token, "token_id">> {
    for (let attempt = 1; ; attempt++) {
      const response = await send(url, this.#headers, body);
      const answer = (await response.json().catch(() => undefined)) as Answer | undefined;
      if (response.ok && answer?.data?.token_id) return answer.data;
      if (response.status !== 504 || attempt === slow) {
        const reasons = answer?.errors?.join("; ").trim().replace(/\s+/g, " ") ?? "no token"; // in one line
        throw new VaultError(`Vault answered ${response.status} to ${url}: ${reasons}`);
      }
      await sleep(1000); // a load balancer may answer 504 at once
    }
  }
}

/** An answer of Vault. */
interface Answer {
  data?: Token | null;
  errors?: string[];
}

/** Sends a request to Vault. A redirect is an error, as no other server may get the Vault token. */
async function send(url: string, headers: Record<string, string>, body?: unknown): Promise<Response> {
  try {
    return await fetch(url, {
      method: body === undefined ? "GET" : "POST",
      headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      redirect: "error",
      signal: AbortSignal.timeout(timeout),
    });
  } catch (error) {
    throw new VaultError(`Vault: ${url}: ${reason(error)}`);
  }
}

/** Returns the time by both of this machine's clocks, in milliseconds. */
function clocks(): { monotonic: number; wall: number } {
  return { monotonic: performance.now(), wall: Date.now() };
}

/**
 * Returns the milliseconds for which a token can be used; now is when it was read, by this machine's clock. If this
 * clock is ahead of Vault's, they are at least ttl; if it is behind, at most the lifetime. A ttl of 1, the least, is
 * ignored if time is left by this clock, as the token may expire sooner.
 */
function left(token: Token, now: number): number {
  const expires = Date.parse(token.expires_at);
  const obtained = Date.parse(token.last_vault_rotation);
  const remaining = Math.min(expires - now, expires - obtained);
  return token.ttl > 1 || !(remaining > 0) ? Math.max(token.ttl * 1000, remaining) : remaining;
}

/** Reports whether a token is not the refused one, and not older. */
function isSuccessor(token: Token | undefined, refused: Token): boolean {
  if (!token || token.token_id === refused.token_id) return false;
  return Date.parse(token.last_vault_rotation) >= Date.parse(refused.last_vault_rotation);
}

/** Returns an error's message with its cause, in which fetch puts the reason. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

/**
 * Returns a fetch that authorizes requests to one MCP server. If the server answers 401, the request is sent again
 * with another token, if Vault has one. Requests to other origins get no token: fetch removes the header when a
 * redirect leads to another origin.
 */
export function vaultFetch(token: VaultToken, server: string | URL): typeof fetch {
  const { origin } = new URL(server);
  return async (input, init) => {
    const request = new Request(input, init);
    if (new URL(request.url).origin !== origin) return fetch(request);
    const held = await token.get();
    const response = await fetch(authorized(request.clone(), held));
    if (response.status !== 401 || !(await token.replace(held))) return response;
    await response.body?.cancel();
    return fetch(authorized(request, await token.get()));
  };
}

function authorized(request: Request, token: Token): Request {
  request.headers.set("Authorization", token.authorization);
  return request;
}
