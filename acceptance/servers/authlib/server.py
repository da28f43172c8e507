# An authorization server on Authlib: the client credentials grant with client_secret_basic, client_secret_post and
# private_key_jwt, access tokens as RFC 9068 has them, and metadata as RFC 8414 has it.
#
# Its arguments are its port on loopback, and the file of its settings, which is read at each request: the clients, the
# lifetime of their tokens, and the number of signing keys. Those from before a restart are lost. It ends when its
# standard input closes.

import json
import os
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs
from urllib.request import urlopen

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # it listens at loopback

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request, grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc.jwk import KeySet, RSAKey

issuer = "http://127.0.0.1:" + sys.argv[1]
token_endpoint = issuer + "/token"
signing_keys = []  # newest first; guarded by the lock
signing_keys_lock = threading.Lock()


def settings():
    with open(sys.argv[2]) as file:
        return json.load(file)


def all_signing_keys():
    with signing_keys_lock:
        while len(signing_keys) < settings()["signingKeys"]:
            signing_keys.insert(0, RSAKey.generate_key(2048, {"kid": secrets.token_hex(8), "use": "sig"}))
        return list(signing_keys)


class Client(ClientMixin):
    def __init__(self, settings):
        self.settings = settings

    def get_client_id(self):
        return self.settings["id"]

    def check_client_secret(self, client_secret):
        return secrets.compare_digest(client_secret.encode(), self.settings["secret"].encode())

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.settings["method"]

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials" and not self.settings["off"]

    def get_allowed_scope(self, scope):
        return " ".join(name for name in (scope or "").split() if name in self.settings["scopes"])


class Server(AuthorizationServer):
    def query_client(self, client_id):
        return next((Client(client) for client in settings()["clients"] if client["id"] == client_id), None)

    def save_token(self, token, request):
        pass

    def create_oauth2_request(self, request):
        return request

    def create_json_request(self, request):
        return request

    def handle_response(self, status, body, headers):
        return status, body, headers

    def send_signal(self, name, *args, **kwargs):
        pass


class ClientAssertion(JWTBearerClientAssertion):
    CLIENT_AUTH_METHOD = "private_key_jwt"
    seen = set()

    def get_audiences(self):
        return [issuer, token_endpoint]

    def validate_jti(self, claims, jti):
        fresh = jti not in self.seen
        self.seen.add(jti)
        return fresh

    def resolve_client_public_key(self, client):
        with urlopen(client.settings["jwksURI"], timeout=5) as answer:
            return KeySet.import_key_set(json.load(answer))


class ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post", "private_key_jwt"]


class Tokens(JWTBearerTokenGenerator):
    def get_jwks(self):
        return KeySet(all_signing_keys()[:1])

    def get_audiences(self, client, user, scope):
        return client.settings["audience"]

    def _get_expires_in(self, client, grant_type):
        return settings()["lifetime"]


server = Server()
server.register_client_auth_method("private_key_jwt", ClientAssertion())
server.register_grant(ClientCredentials)
server.register_token_generator("default", Tokens(issuer))

metadata = {
    "issuer": issuer,
    "token_endpoint": token_endpoint,
    "jwks_uri": issuer + "/jwks",
    "response_types_supported": [],
    "grant_types_supported": ["client_credentials"],
    "token_endpoint_auth_methods_supported": ClientCredentials.TOKEN_ENDPOINT_AUTH_METHODS,
    "token_endpoint_auth_signing_alg_values_supported": ["RS256", "ES256"],
}


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, content, headers=()):
        content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        as_json = [("Content-Type", "application/json")]
        if self.path == "/.well-known/oauth-authorization-server":
            self.answer(200, metadata, as_json)
        elif self.path == "/jwks":
            self.answer(200, KeySet(all_signing_keys()).as_dict(private=False), as_json)
        else:
            self.answer(404, {}, as_json)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        request = OAuth2Request("POST", issuer + self.path, headers=dict(self.headers))
        request.payload = BasicOAuth2Payload(form)
        request._body = form
        self.answer(*server.create_token_response(request))


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_stdin, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
