"""A token server: what `auth: token` of a registry sends its clients to.

It answers GET with a password, POST with a password or with an identity token (OAuth2's refresh token), and
remembers every request and every token that it gave away.
"""

import base64
import itertools
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

ISSUER, SERVICE = "e2e-tokens", "e2e-registry"
# distribution accepts tokens that are expired for less than this (auth/token: Leeway). Theirs must end when it is said.
LEEWAY = 60


class TokenServer:
    def __init__(self, pair, users=None, identities=(), lifetime=60, grants=("pull", "push", "delete", "*")):
        self.users, self.identities, self.lifetime = dict(users or {}), set(identities), lifetime
        # What may be done at all, whatever is asked for.
        self.grants = set(grants)
        self.requests, self.given = [], []
        self._key = pair.key.read_text()
        pem = pair.cert.read_text().split("-----")[2]
        self._chain = ["".join(pem.split())]
        self._count = itertools.count(1)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                outer._answer(self, "GET", query, outer._basic(self.headers.get("Authorization")))

            def do_POST(self):
                text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                form = urllib.parse.parse_qs(text)
                grant = form.get("grant_type", [""])[0]
                if grant == "refresh_token":
                    user = "identity" if form.get("refresh_token", [""])[0] in outer.identities else None
                else:
                    name = form.get("username", [""])[0]
                    user = name if outer.users.get(name) == form.get("password", [None])[0] else None
                outer._answer(self, f"POST {grant}", form, user)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def auth(self, pair):
        """The `auth` part of the configuration of a registry that trusts this server."""
        return (f"auth:\n  token:\n    realm: {self.url}\n    service: {SERVICE}\n    issuer: {ISSUER}\n"
                f"    rootcertbundle: {pair.cert}\n")

    def reset(self):
        self.requests.clear()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _basic(self, header):
        scheme, _, value = (header or "").partition(" ")
        if scheme.lower() != "basic":
            return None
        name, _, password = base64.b64decode(value).decode().partition(":")
        return name if self.users.get(name) == password else None

    def _answer(self, handler, how, form, user):
        scopes = [scope for each in form.get("scope", []) for scope in each.split()]
        self.requests.append({"how": how, "user": user, "scopes": scopes, "time": time.time()})
        if user is None:
            body, status = {"errors": [{"code": "UNAUTHORIZED", "message": "wrong user or password"}]}, 401
        else:
            token, status = self._token(user, scopes), 200
            self.given.append(token)
            body = {"token": token, "access_token": token, "expires_in": self.lifetime,
                    "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _token(self, user, scopes):
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": [each for each in actions.split(",") if each in self.grants]})
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "jti": str(next(self._count)), "access": access,
                  "iat": now, "nbf": now - 10, "exp": now + self.lifetime - LEEWAY}
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"x5c": self._chain})
