package servers;

import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.gen.RSAKeyGenerator;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedList;
import java.util.List;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.settings.ClientSettings;
import org.springframework.security.oauth2.server.authorization.settings.TokenSettings;
import org.springframework.stereotype.Component;
import tools.jackson.databind.json.JsonMapper;

/** What the tests write to a file, which is read at each request: the clients, and the number of signing keys. */
@Component
class Settings implements RegisteredClientRepository {
    private final Path file;
    private final JsonMapper json;
    private final List<JWK> signingKeys = new LinkedList<>(); // newest first; guarded by this

    Settings(@Value("${settings}") Path file, JsonMapper json) {
        this.file = file;
        this.json = json;
    }

    record File(int signingKeys, int lifetime, List<Client> clients) {}

    record Client(String id, String secret, String method, String algorithm, String jwksURI, String subject,
            String audience, List<String> scopes, boolean off, boolean boundTokens) {}

    private File read() {
        return json.readValue(file, File.class);
    }

    /** The signing keys, the newest first. Those from before a restart are lost. */
    synchronized List<JWK> signingKeys() {
        while (signingKeys.size() < read().signingKeys) {
            try {
                signingKeys.add(0, new RSAKeyGenerator(2048).keyIDFromThumbprint(true).generate());
            } catch (JOSEException e) {
                throw new IllegalStateException(e);
            }
        }
        return List.copyOf(signingKeys);
    }

    @Override
    public RegisteredClient findByClientId(String clientId) {
        File settings = read();
        return settings.clients.stream()
                .filter(client -> client.id.equals(clientId))
                .map(client -> registered(client, settings.lifetime))
                .findFirst().orElse(null);
    }

    @Override
    public RegisteredClient findById(String id) {
        return findByClientId(id); // the same here
    }

    @Override
    public void save(RegisteredClient client) {} // Spring hashes the secret; the file stays as the tests wrote it

    private static RegisteredClient registered(Client client, int lifetime) {
        ClientSettings.Builder settings = ClientSettings.builder().setting("resources", List.of(client.audience));
        switch (client.method) {
            case "private_key_jwt" -> settings.jwkSetUrl(client.jwksURI)
                    .tokenEndpointAuthenticationSigningAlgorithm(SignatureAlgorithm.from(client.algorithm));
            case "tls_client_auth" -> settings.x509CertificateSubjectDN(client.subject);
        }
        return RegisteredClient.withId(client.id)
                .clientId(client.id)
                .clientSecret("{noop}" + client.secret)
                .clientAuthenticationMethod(new ClientAuthenticationMethod(client.method))
                .authorizationGrantType(client.off
                        ? AuthorizationGrantType.TOKEN_EXCHANGE : AuthorizationGrantType.CLIENT_CREDENTIALS)
                .scopes(scopes -> scopes.addAll(client.scopes))
                .clientSettings(settings.build())
                .tokenSettings(TokenSettings.builder()
                        .accessTokenTimeToLive(Duration.ofSeconds(lifetime))
                        .x509CertificateBoundAccessTokens(client.boundTokens)
                        .build())
                .build();
    }
}
