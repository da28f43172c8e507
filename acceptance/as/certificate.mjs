// How oidc-provider is told about client certificates (RFC 8705 section 2.1): what came with the TLS
// connection of a request.

const certificate = (ctx) => ctx.socket.getPeerX509Certificate?.();

export const certificateChecks = {
  getCertificate: (ctx) => certificate(ctx)?.toString(),

  // Whether it was issued by the CA of the listener and is within its time.
  certificateAuthorized: (ctx) => ctx.socket.authorized === true,

  certificateSubjectMatches(ctx, property, expected) {
    const { subject, subjectAltName } = certificate(ctx);
    switch (property) {
      case 'tls_client_auth_subject_dn':
        // Node gives a line for each part, in the order of the certificate; RFC 4514 turns that around.
        return subject.split('\n').reverse().join(',') === expected;
      case 'tls_client_auth_san_dns':
        return (subjectAltName ?? '').split(', ').includes(`DNS:${expected}`);
      default:
        return false;
    }
  },
};
