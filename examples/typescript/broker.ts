// A broker in TypeScript, with only Node.js and vault_mcp_auth.ts.
//
// It reads its access token from Vault, and lists the tools of an MCP server each time you press Enter:
//
//   VAULT_ADDR=http://127.0.0.1:8100 node broker.ts mcp-oauth/token/files https://files.example.com/mcp
//
// Node.js 22.18 or newer runs it directly. For an older one compile it first: npm ci && npx tsc.
//
// It uses plain HTTP to show what vault_mcp_auth does. With an MCP SDK, use vaultFetch of vault_mcp_auth.

import process from "node:process";
import { createInterface } from "node:readline";
import { VaultToken, vaultFetch } from "./vault_mcp_auth.ts";

const timeout = 60_000; // milliseconds for one request, including a replacement of its token

/** The MCP server gave no result, or an HTTP error. */
class McpError extends Error {
  readonly status?: number;

  constructor(text: string, status?: number) {
    super(`the MCP server ${text}`);
    this.status = status;
  }
}

/** An MCP server (Streamable HTTP) that requires an access token. */
class McpServer {
  #url: string;
  #fetch: typeof fetch;
  #session: Record<string, string> = {}; // headers of the session
  #initialized = false;
  #requests = 0;

  constructor(url: string, token: VaultToken) {
    this.#url = url;
    this.#fetch = vaultFetch(token, url);
  }

  /** Returns the names of the server's tools. */
  async tools(): Promise<string[]> {
    if (!this.#initialized) await this.#initialize();
    try {
      const { tools } = await this.#call("tools/list");
      return (tools ?? []).map((tool) => tool.name);
    } catch (error) {
      // The session has ended; the next call begins another.
      if (error instanceof McpError && error.status === 404) this.#initialized = false;
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
    if (!answer?.result) throw new McpError(`answered ${method} with: ${answer?.error?.message ?? "nothing"}`);
    return answer.result;
  }

  async #post(message: Message): Promise<Answer | undefined> {
    const response = await this.#fetch(this.#url, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json, text/event-stream", ...this.#session },
      body: JSON.stringify(message),
      redirect: "error",
      signal: AbortSignal.timeout(timeout),
    });
    if (!response.ok) {
      await response.body?.cancel();
      throw new McpError(`answered ${response.status}`, response.status);
    }
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

/** Returns the answer to a request from a stream of server-sent events, which the server ends after it. */
function answerIn(stream: string, id?: number): Answer | undefined {
  return stream
    .split(/\r?\n\r?\n/)
    .map((event) => event.match(/^data:.*$/gm)?.map((line) => line.slice("data:".length)).join("\n"))
    .filter((data) => data !== undefined)
    .map((data) => JSON.parse(data) as Answer)
    .find((message) => message.id === id && message.method === undefined);
}

/** Returns an error's message with its cause, in which fetch puts the reason. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

const [path, url] = process.argv.slice(2);
if (!path || !url) throw new Error("usage: VAULT_ADDR=... node broker.ts <token path> <MCP server's URL>");
const server = new McpServer(url, VaultToken.fromEnvironment(path));
for await (const _ of createInterface({ input: process.stdin })) {
  try {
    console.log("tools:", ...(await server.tools()));
  } catch (error) {
    console.log("failed:", reason(error));
  }
}
