"""A Hugging Face hub on a loopback port: what huggingface_hub asks for when it downloads a model, and no more.

Repository files live in memory. Files of `lfs_from` bytes and more, and all safetensors, are LFS files (named by
their sha256); the others are named by their git blob id. With a `cas` directory the LFS files are Xet files as well:
hf_xet uploads them there when the commit is made and downloads them from there through its own `local://` scheme.
"""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


class HubFile:
    def __init__(self, content, lfs):
        self.content = content
        self.blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.sha256 = hashlib.sha256(content).hexdigest() if lfs else None
        self.xet_hash = None

    @property
    def etag(self):
        return self.sha256 or self.blob_id


class Hub:
    """Repositories with commits and refs, served until `close`."""

    def __init__(self, cas=None, lfs_from=1 << 20):
        self.cas, self.lfs_from = cas, lfs_from
        self.repos = {}
        self.requests = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def commit(self, repo, files, refs=("main",)):
        """Store `files` (path to bytes) as a commit of `repo`, point `refs` at it and return its id."""
        stored = {
            path: HubFile(content, path.endswith(".safetensors") or len(content) >= self.lfs_from)
            for path, content in sorted(files.items())
        }
        if self.cas is not None:
            self._upload([file for file in stored.values() if file.sha256])
        listing = "".join(f"{path} {file.blob_id}\n" for path, file in stored.items())
        commit = hashlib.sha1(f"{repo}\n{listing}".encode()).hexdigest()
        commits, known = self.repos.setdefault(repo, ({}, {}))
        commits[commit] = stored
        known.update(dict.fromkeys(refs, commit))
        return commit

    def _upload(self, files):
        import hf_xet

        with hf_xet.XetSession().new_upload_commit(**self.xet_connection()) as upload:
            uploads = [upload.start_upload_bytes(file.content, sha256=file.sha256) for file in files]
        for file, done in zip(files, uploads):
            file.xet_hash = done.result().xet_info.hash

    def xet_connection(self):
        Path(self.cas).mkdir(parents=True, exist_ok=True)
        expiry = int(time.time()) + 24 * 3600
        return {"endpoint": f"local://{self.cas}", "token": "loopback", "token_expiry_unix_secs": expiry}

    def resolve(self, repo, revision):
        commits, refs = self.repos[repo]
        commit = revision if revision in commits else refs[revision]
        return commit, commits[commit]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *_arguments):
        pass

    def do_HEAD(self):
        self._answer(send_body=False)

    def do_GET(self):
        self._answer(send_body=True)

    def _answer(self, send_body):
        url = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {self.path}")
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        try:
            headers, body = self._route(parts, parse_qs(url.query))
        except KeyError as missing:
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, f"no {missing}".encode(), send_body)
        else:
            self._send(200, headers, body, send_body)

    def _route(self, parts, query):
        if parts[:2] == ["api", "models"] and len(parts) >= 6:
            repo, kind, revision = "/".join(parts[2:4]), parts[4], parts[5]
            commit, files = self.hub.resolve(repo, revision)
            if kind == "revision":
                return self._json({"_id": commit, "id": repo, "modelId": repo, "sha": commit, "private": False,
                                   "siblings": [{"rfilename": path} for path in files]})
            if kind == "tree" and query.get("recursive") == ["true"]:
                return self._json([self._tree_entry(path, file) for path, file in files.items()])
            if kind == "xet-read-token" and self.hub.cas is not None:
                xet = self.hub.xet_connection()
                return {"X-Xet-Cas-Url": xet["endpoint"], "X-Xet-Access-Token": xet["token"],
                        "X-Xet-Token-Expiration": str(xet["token_expiry_unix_secs"])}, b"{}"
        if len(parts) >= 5 and parts[2] == "resolve":
            repo = "/".join(parts[:2])
            commit, files = self.hub.resolve(repo, parts[3])
            file = files["/".join(parts[4:])]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{file.etag}"'}
            if file.sha256:
                headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
            if file.xet_hash:
                refresh = f"{self.hub.endpoint}/api/models/{repo}/xet-read-token/{commit}"
                headers |= {"X-Xet-Hash": file.xet_hash, "X-Xet-Refresh-Route": refresh}
            return headers, file.content
        raise KeyError(self.path)

    @staticmethod
    def _tree_entry(path, file):
        entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.blob_id}
        if file.sha256:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 135}
        if file.xet_hash:
            entry["xetHash"] = file.xet_hash
        return entry

    @staticmethod
    def _json(value):
        return {"Content-Type": "application/json"}, json.dumps(value).encode()

    def _send(self, status, headers, body, send_body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send_body:
            self.wfile.write(body)
