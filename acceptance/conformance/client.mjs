// The command that the suite starts as the client. It gives the MCP server's URL to the test, which acts as the client, and
// ends when the test answers. Usage: node client.mjs URL_OF_THE_TEST URL_OF_THE_MCP_SERVER
const [test, server] = process.argv.slice(2);
const answer = await fetch(test, { method: "POST", body: server });
process.exitCode = answer.ok ? 0 : 1;
