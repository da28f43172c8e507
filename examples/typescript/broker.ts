// A broker in TypeScript, with nothing but what Node.js brings.
//
// It reads its access token from Vault, and lists the tools of an MCP server each time that you press
// Enter:
//
//   VAULT_ADDR=http://127.0.0.1:8100 node broker.ts mcp-oauth/token/files https://files.example.com/mcp
//
// Node.js runs it as it is from 22.18 on; for an older one compile it first: npm ci && npx tsc.
//
// VAULT_ADDR may be that of a Vault Agent or Vault Proxy with auto-auth, as here; then no Vault token is
// needed. Otherwise set VAULT_TOKEN, and keep it renewed. VAULT_NAMESPACE is used where it is set.

import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const timeout = 10_000; // milliseconds for one request
const longest = 300_000; // milliseconds between two attempts to replace refused tokens
const slow = 6; // requests while Vault answers 504: it still waits for the authorization server, 5 s each time

// Milliseconds between reads after a refresh, a second in all: a standby of Vault that answers reads lags behind.
const pauses = [10, 20, 40, 80, 160, 200, 200, 200];

// What the plugin's token path answers; there is more.
interface Token {
  authorization: string;
  expires_at: string; // RFC 3339, by Vault's clock
  last_vault_rotation: string; // the same, when the token was obtained
  token_id: string;
  ttl: number; // seconds until reading again is worth while
}

class HttpError extends Error {
  readonly status: number;

  constructor(url: string, status: number) {
    super(`${new URL(url).host} answered ${status}`);
    this.status = status;
  }
}

/** Sends a request. A redirect is an error: the token is for nobody else. */
async function request(url: string, headers: Record<string, string>, body?: unknown): Promise<Response> {
  const response = await fetch(url, {
    method: body === undefined ? "GET" : "POST",
    headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    redirect: "error",
    signal: AbortSignal.timeout(timeout),
  });
  if (!response.ok) {
    await response.body?.cancel();
    throw new HttpError(url, response.status);
  }
  return response;
}

/** The access token that Vault holds at a path, such as mcp-oauth/token/files. */
class VaultToken {
  #tokenURL: string;
  #refreshURL: string;
  #headers: Record<string, string> = { "X-Vault-Request": "true" }; // Agents and Proxies may ask for it
  #held?: Token; // the last answer of the token path
  #asked = clocks(); // when it was asked for
  #expires = 0; // how many milliseconds after that it does
  #due = 0; // how many after that to read again
  #failures = 0; // of reads, in a row
  #reading?: Promise<void>;
  #refused = 0; // when the MCP server last refused the held token, by the monotonic clock
  #attempts = 0; // to replace refused tokens, in a row
  #nextAttempt = 0; // when the next one is due
  #replacing?: Promise<void>;

  constructor(address: string, path: string, vaultToken?: string, namespace?: string) {
    const [, mount, name] = /^(.+?)\/token\/(.+)$/.exec(path) ?? [];
    if (!name) throw new Error(`${path} is not of the form <mount>/token/<server>`);
    this.#tokenURL = `${address}/v1/${mount}/token/${name}`;
    this.#refreshURL = `${address}/v1/${mount}/refresh/${name}`;
    if (vaultToken) this.#headers["X-Vault-Token"] = vaultToken;
    if (namespace) this.#headers["X-Vault-Namespace"] = namespace;
  }

  /** Returns a token that is valid now. It waits for Vault only where none is held. */
  async get(): Promise<Token> {
    if (this.#elapsed() >= this.#due) {
      this.#reading ??= this.#readOrKeep().finally(() => (this.#reading = undefined));
    }
    if (!this.#valid()) await this.#reading;
    if (!this.#held || !this.#valid()) throw new Error("Vault has no valid token for us");
    return this.#held;
  }

  /**
   * Has Vault replace a token that the MCP server refused, and tells whether there is another. There is
   * none while the token is younger than 10 seconds. The wait from one attempt to the next doubles, whatever
   * came of it, as there are servers that refuse every token. It begins anew once none was refused for as
   * long as it can get.
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
      most = 30_000; // it may be mended any time
      console.error(`broker: the refused token could not be replaced: ${reason(error)}`);
    }
    this.#nextAttempt = clocks().monotonic + Math.min(2 ** this.#attempts * 1000, most);
    this.#attempts++;
  }

  /** Names the refused token to Vault, and reads the one in its place once a read brings it. */
  async #readSuccessor(refused: Token): Promise<void> {
    const successor = await this.#ask(this.#refreshURL, { token_id: refused.token_id });
    if (successor.token_id === refused.token_id) return; // Vault keeps it
    await this.#reading; // which may bring the refused token once more
    await this.#read();
    for (const pause of pauses) {
      if (this.#held?.token_id === successor.token_id) break;
      await sleep(pause);
      await this.#read();
    }
  }

  #valid(): boolean {
    return this.#elapsed() < this.#expires;
  }

  /**
   * The milliseconds since the held token was asked for, by the clock that says more: the monotonic one
   * may stand still while the machine sleeps, and the other may be set back.
   */
  #elapsed(): number {
    const now = clocks();
    return Math.max(now.monotonic - this.#asked.monotonic, now.wall - this.#asked.wall);
  }

  /** Reads the token path. While that fails, the held token serves until it expires. */
  async #readOrKeep(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      this.#due = this.#elapsed() + Math.min(2 ** this.#failures, 30) * 1000;
      this.#failures++;
      console.error(`broker: Vault gave no token: ${reason(error)}`);
      if (this.#valid()) console.error("broker: going on with the held token");
    }
  }

  async #read(): Promise<void> {
    const asked = clocks();
    const data = (await this.#ask(this.#tokenURL)) as Token;
    const remaining = left(data, asked.wall);
    if (Number.isNaN(remaining)) throw new Error("the answer is not a token");
    this.#held = data;
    this.#asked = asked;
    this.#expires = remaining;
    this.#due = data.ttl * 1000;
    this.#failures = 0;
  }

  /** Sends a request to Vault, again while a fetch goes on, and returns the data of the answer. */
  async #ask(url: string, body?: unknown): Promise<Pick<Token, "token_id">> {
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await request(url, this.#headers, body);
        return ((await response.json()) as { data: Token }).data;
      } catch (error) {
        if (!(error instanceof HttpError) || error.status !== 504 || attempt === slow) throw error;
      }
      await sleep(1000); // whatever is between may answer at once
    }
  }
}

/** The time by both of this machine's clocks, in milliseconds. */
function clocks(): { monotonic: number; wall: number } {
  return { monotonic: performance.now(), wall: Date.now() };
}

/**
 * For how many milliseconds a token is good, read at a time by this machine's clock. Where that is ahead of
 * Vault's, ttl holds, and where it is behind, the lifetime. A ttl of 1, the least, may be longer than what
 * is left.
 */
function left(token: Token, now: number): number {
  const expires = Date.parse(token.expires_at);
  const obtained = Date.parse(token.last_vault_rotation);
  const remaining = Math.min(expires - now, expires - obtained);
  return token.ttl > 1 || !(remaining > 0) ? Math.max(token.ttl * 1000, remaining) : remaining;
}

/** What went wrong. fetch hides that in the cause of its errors. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

/** An MCP server (Streamable HTTP) that wants an access token. */
class McpServer {
  #url: string;
  #token: VaultToken;
  #session: Record<string, string> = {}; // headers of the session
  #initialized = false;
  #requests = 0;

  constructor(url: string, token: VaultToken) {
    this.#url = url;
    this.#token = token;
  }

  /** Returns the names of the server's tools. */
  async tools(): Promise<string[]> {
    if (!this.#initialized) await this.#initialize();
    try {
      const { tools } = await this.#call("tools/list");
      return (tools ?? []).map((tool) => tool.name);
    } catch (error) {
      // The session is over; the next call begins another.
      if (error instanceof HttpError && error.status === 404) this.#initialized = false;
      throw error;
    }
  }

  async #initialize(): Promise<void> {
    this.#session = {};
    const { protocolVersion } = await this.#call("initialize", {
      protocolVersion: "2025-06-18",
      capabilities: {},
      clientInfo: { name: "broker", version: "1.0.0" },
    });
    this.#session["MCP-Protocol-Version"] = protocolVersion ?? "";
    await this.#post({ jsonrpc: "2.0", method: "notifications/initialized" });
    this.#initialized = true;
  }

  async #call(method: string, params: object = {}): Promise<NonNullable<Answer["result"]>> {
    const answer = await this.#post({ jsonrpc: "2.0", id: ++this.#requests, method, params });
    if (!answer?.result) throw new Error(`${method}: ${answer?.error?.message ?? "no answer"}`);
    return answer.result;
  }

  /** Sends a message. When the server refuses the token, it has it replaced and tries once more. */
  async #post(message: Message): Promise<Answer | undefined> {
    const token = await this.#token.get();
    try {
      return await this.#send(message, token);
    } catch (error) {
      const refused = error instanceof HttpError && error.status === 401;
      if (!refused || !(await this.#token.replace(token))) throw error;
    }
    return this.#send(message, await this.#token.get());
  }

  async #send(message: Message, token: Token): Promise<Answer | undefined> {
    const response = await request(
      this.#url,
      { Authorization: token.authorization, Accept: "application/json, text/event-stream", ...this.#session },
      message,
    );
    const session = response.headers.get("Mcp-Session-Id");
    if (session) this.#session["Mcp-Session-Id"] = session;
    if (response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      return answerIn(await response.text(), message.id);
    }
    const body = await response.text();
    return body ? (JSON.parse(body) as Answer) : undefined;
  }
}

interface Message {
  jsonrpc: "2.0";
  id?: number;
  method: string;
  params?: object;
}

interface Answer {
  id?: number;
  method?: string;
  result?: { protocolVersion?: string; tools?: { name: string }[] };
  error?: { message: string };
}

/** Finds the answer to a request among server-sent events. Servers end the stream after it. */
function answerIn(stream: string, id?: number): Answer | undefined {
  return stream
    .split(/\r?\n\r?\n/)
    .map((event) => event.match(/^data:.*$/gm)?.map((line) => line.slice("data:".length)).join("\n"))
    .filter((data) => data !== undefined)
    .map((data) => JSON.parse(data) as Answer)
    .find((message) => message.id === id && message.method === undefined);
}

const [path, url] = process.argv.slice(2);
const address = process.env.VAULT_ADDR;
if (!address || !path || !url) throw new Error("usage: VAULT_ADDR=... node broker.ts <token path> <MCP server's URL>");
const token = new VaultToken(address, path, process.env.VAULT_TOKEN, process.env.VAULT_NAMESPACE);
const server = new McpServer(url, token);
for await (const _ of createInterface({ input: process.stdin })) {
  try {
    console.log("tools:", ...(await server.tools()));
  } catch (error) {
    console.log("failed:", reason(error));
  }
}
