# A token endpoint of Authlib, which takes client_secret_basic, and decodes it as it does: by percent-encoding alone.
#
# Options come as one JSON object in the first argument:
#
#   client_id, client_secret   of its one client
#
# Once listening it prints one line, {"url": ...}, and ends when its standard input closes.

import json
import os
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # it listens at loopback

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request, grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload

options = json.loads(sys.argv[1])


class Client(ClientMixin):
    client_id = options["client_id"]

    def check_client_secret(self, client_secret):
        return secrets.compare_digest(client_secret.encode(), options["client_secret"].encode())

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"

    def get_allowed_scope(self, scope):
        return scope


class Server(AuthorizationServer):
    def query_client(self, client_id):
        return Client() if client_id == Client.client_id else None

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


server = Server()
server.register_grant(grants.ClientCredentialsGrant)
server.register_token_generator(
    "default",
    lambda **_: {"token_type": "Bearer", "access_token": secrets.token_urlsafe(32), "expires_in": 300},
)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        request = OAuth2Request("POST", base + self.path, headers=dict(self.headers))
        request.payload = BasicOAuth2Payload(form)
        request._body = form
        status, answer, headers = server.create_token_response(request)
        answer = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
base = "http://127.0.0.1:%d" % listener.server_address[1]
threading.Thread(target=end_with_stdin, daemon=True).start()
print(json.dumps({"url": base + "/token"}), flush=True)
listener.serve_forever()
