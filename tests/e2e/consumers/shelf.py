"""A registry that hands out what lies in OCI layouts as it is, right or wrong: it checks nothing and takes nothing."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<what>[^/]+)")


class Shelf:
    """Serves each directory in `root`, which is a layout, as the repository of its name; any tag is its image. Without
    `ranges` it sends all of a blob to whoever asks for a part."""

    def __init__(self, root, ranges=True):
        root = Path(root)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path in ("/v2", "/v2/"):
                    return self._answer(200, b"{}", "application/json")
                at = PATH.fullmatch(self.path.partition("?")[0])
                if not at:
                    return self._answer(404, b"", "text/plain")
                layout = root / at["name"]
                what, media_type = at["what"], "application/octet-stream"
                if at["kind"] == "manifests":
                    listed = json.loads((layout / "index.json").read_text())["manifests"][0]
                    if not what.startswith("sha256:"):
                        what = listed["digest"]
                    media_type = listed["mediaType"] if what == listed["digest"] else self._inside(layout, what)
                path = layout / "blobs" / "sha256" / what.removeprefix("sha256:")
                if not path.is_file():
                    return self._answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}', "application/json")
                return self._answer(200, path.read_bytes(), media_type, what)

            do_HEAD = do_GET

            def _inside(self, layout, digest):
                """The media type that an image index gives a manifest."""
                index = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
                listed = json.loads((layout / "blobs" / "sha256" / index[7:]).read_text())["manifests"]
                return next((each["mediaType"] for each in listed if each["digest"] == digest), "text/plain")

            def _answer(self, status, body, media_type, digest=None):
                size = len(body)
                wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "") if ranges else "")
                self.send_response_only(206 if wanted and status == 200 else status)
                if wanted and status == 200:
                    first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
                    body = body[first : last + 1]
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                if digest:
                    self.send_header("Docker-Content-Digest", digest)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def ref(self, name, tag="v1"):
        return f"{self.host}/{name}:{tag}"

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
