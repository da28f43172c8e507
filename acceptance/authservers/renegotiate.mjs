// A token endpoint that asks for the client's certificate only once it knows the request, by renegotiation
// (RFC 5246 section 7.4.1.1), as servers do that protect one path of many.
//
// Options come as one JSON object in the first argument:
//
//   key, cert   files of the server's key and certificate, in PEM
//   ca          file of the CA of client certificates
//
// Once listening it prints one line, {"url": ...}, and ends when its standard input closes.

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

const options = JSON.parse(process.argv[2]);
const server = createServer({
  key: readFileSync(options.key),
  cert: readFileSync(options.cert),
  ca: readFileSync(options.ca),
  maxVersion: 'TLSv1.2',
  requestCert: false,
}, (req, res) => {
  req.resume();
  req.on('end', () => {
    req.socket.renegotiate({ requestCert: true, rejectUnauthorized: false }, (err) => {
      const known = !err && req.socket.authorized;
      res.writeHead(known ? 200 : 401, { 'content-type': 'application/json' });
      res.end(JSON.stringify(known
        ? { access_token: randomUUID(), token_type: 'Bearer', expires_in: 300 }
        : { error: 'invalid_client' }));
    });
  });
});
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`${JSON.stringify({ url: `https://127.0.0.1:${server.address().port}/token` })}\n`);
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
process.stdin.on('error', () => process.exit(0));
