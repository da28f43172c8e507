package servers;

import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.proc.SecurityContext;
import java.util.List;
import org.apache.catalina.connector.Connector;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.tomcat.servlet.TomcatServletWebServerFactory;
import org.springframework.boot.web.server.WebServerFactoryCustomizer;
import org.springframework.context.annotation.Bean;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.jwt.JwtEncoder;
import org.springframework.security.oauth2.jwt.NimbusJwtEncoder;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientCredentialsAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;

/**
 * Spring Authorization Server as Boot configures it, except for its clients and signing keys, which the tests set, and
 * for the audience of its tokens. Its issuer is the address that it was asked at: https, or http at plain-port.
 */
@SpringBootApplication
public class SpringServer {
    public static void main(String[] args) {
        SpringApplication.run(SpringServer.class, args);
    }

    // docs/providers.md links here.
    @Bean
    OAuth2TokenCustomizer<JwtEncodingContext> audienceFromResource() {
        return context -> {
            if (context.getAuthorizationGrant() instanceof OAuth2ClientCredentialsAuthenticationToken grant
                    && grant.getAdditionalParameters().containsKey("resource")) {
                Object resource = grant.getAdditionalParameters().get("resource");
                List<String> allowed = context.getRegisteredClient().getClientSettings().getSetting("resources");
                if (!allowed.contains(resource)) {
                    throw new OAuth2AuthenticationException("invalid_target");
                }
                context.getClaims().audience(List.of((String) resource));
            }
        };
    }

    @Bean
    JWKSource<SecurityContext> publishedKeys(Settings settings) {
        return (selector, context) -> selector.select(new JWKSet(settings.signingKeys()));
    }

    @Bean
    JwtEncoder encoder(JWKSource<SecurityContext> publishedKeys) {
        NimbusJwtEncoder encoder = new NimbusJwtEncoder(publishedKeys);
        encoder.setJwkSelector(keys -> keys.get(0)); // the newest
        return encoder;
    }

    @Bean
    WebServerFactoryCustomizer<TomcatServletWebServerFactory> plainListener(@Value("${plain-port}") int port) {
        return factory -> {
            Connector plain = new Connector();
            plain.setPort(port);
            plain.setProperty("address", "127.0.0.1");
            factory.addAdditionalConnectors(plain);
        };
    }
}
