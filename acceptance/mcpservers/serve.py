# What the two servers in Python have in common: options, token checks, and a life that ends with the test's.
#
# Options come as one JSON object in the first argument:
#
#   issuer    the authorization server
#   resource  path of the resource identifier: "/mcp", or "" for the origin
#   scopes    scopes that every request needs
#
# Once listening a server prints one line, {"url": ..., "resource": ...}, and ends on SIGTERM or when its
# standard input closes.

import json
import os
import socket
import sys
import threading

import jwt
import uvicorn
from pydantic import AnyHttpUrl

options = json.loads(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0))
base = "http://127.0.0.1:%d" % listener.getsockname()[1]
issuer = options.get("issuer")
scopes = options.get("scopes", [])
# As the SDKs publish it: they add a slash to an origin.
resource = str(AnyHttpUrl(base + options.get("resource", "/mcp")))


class Tokens:
    """Takes JWTs of the issuer for the resource that have not expired."""

    def __init__(self):
        self.keys = jwt.PyJWKClient(issuer + "/jwks")

    def claims(self, token):
        try:
            key = self.keys.get_signing_key_from_jwt(token).key
            return jwt.decode(token, key, algorithms=["RS256"], audience=resource, issuer=issuer)
        except jwt.PyJWTError as error:
            print("refused a token:", type(error).__name__, file=sys.stderr)
            return None


def serve(app):
    def end_with_stdin():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end_with_stdin, daemon=True).start()
    print(json.dumps({"url": base + "/mcp", "resource": resource}), flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="info")).run(sockets=[listener])
