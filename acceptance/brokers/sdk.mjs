// A broker on the official SDK in TypeScript. For each line that it reads it calls the tool, in one session.
//
// With a token path it authorizes its requests itself, by vault_mcp_auth; without, it takes the URL as it is.

import process from "node:process";
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, path] = process.argv.slice(2);
const options = {};
if (path) {
  const { VaultToken, vaultFetch } = await import("./vault_mcp_auth.js");
  options.fetch = vaultFetch(VaultToken.fromEnvironment(path), url);
}
const client = new Client({ name: "broker", version: "1.0.0" });
await client.connect(new StreamableHTTPClientTransport(new URL(url), options));
for await (const _ of createInterface({ input: process.stdin })) {
  try {
    const { content } = await client.callTool({ name: "forecast", arguments: { city: "Oslo" } });
    console.log(content[0].text);
  } catch (error) {
    console.log("failed:", error.message);
  }
}
process.exit();
