// What a test can change while the authorization server runs, and what it can read back.

export class State {
  // Client metadata by client_id. oidc-provider's own static clients cannot change; clients that
  // come from an adapter are looked up at every request.
  clients = new Map();

  // Resources (RFC 8707) that tokens can be asked for: {resource, scope, ttl, delay_ms} by URL.
  // Any other is refused with invalid_target.
  resources = new Map();

  // Every token request since the start, oldest first.
  requests = [];

  // Every fetch of a client's jwks_uri since the start, oldest first: {time, url, status}.
  keyFetches = [];

  setClient(client) {
    // A client that gets tokens for itself only. oidc-provider wants that spelled out.
    this.clients.set(client.client_id, {
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      ...client,
    });
  }

  setResource(resource) {
    this.resources.set(resource.resource, { ttl: 300, ...resource });
  }

  // adapter returns the constructor that oidc-provider calls once for each of its models.
  adapter() {
    const { clients } = this;
    return class Adapter {
      constructor(model) {
        this.entries = model === 'Client' ? clients : new Map();
      }

      async find(id) {
        return this.entries.get(id);
      }

      async upsert(id, payload) {
        this.entries.set(id, payload);
      }

      async destroy(id) {
        this.entries.delete(id);
      }

      async consume(id) {
        const entry = this.entries.get(id);
        if (entry) entry.consumed = Math.floor(Date.now() / 1000);
      }

      // Grants and device codes do not occur with client credentials.
      async revokeByGrantId() {}
      async findByUid() {}
      async findByUserCode() {}
    };
  }
}
