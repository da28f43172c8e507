// The control endpoint, for the test process alone: JSON in, JSON out, on a loopback port of its own.
//
//   PUT    /clients            add or replace the client in the body
//   DELETE /clients?id=ID      remove a client
//   PUT    /resources          add or replace the resource in the body
//   GET    /requests           token requests seen so far
//   GET    /keyfetches         fetches of clients' key sets so far

export function control(state) {
  const routes = {
    'PUT /clients': (body) => state.setClient(body),
    'DELETE /clients': (body, id) => { state.clients.delete(id); },
    'PUT /resources': (body) => state.setResource(body),
    'GET /requests': () => state.requests,
    'GET /keyfetches': () => state.keyFetches,
  };

  return async (req, res) => {
    try {
      const url = new URL(req.url, 'http://control');
      const route = routes[`${req.method} ${url.pathname}`];
      if (!route) {
        res.writeHead(404).end();
        return;
      }
      const chunks = [];
      for await (const chunk of req) chunks.push(chunk);
      const body = chunks.length ? JSON.parse(Buffer.concat(chunks)) : undefined;
      const answer = route(body, url.searchParams.get('id'));
      res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer ?? {}));
    } catch (err) {
      console.error('control:', err.name);
      res.writeHead(400).end();
    }
  };
}
