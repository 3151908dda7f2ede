"""https://huggingface.co of the sandbox: the end-to-end tests' hub (hub_server.py) over TLS.

    hub.py DIRECTORY READY

DIRECTORY has `hub.cert` and `hub.key`, and below `repositories/ORG/NAME` the files of each repository. READY is written
when requests are answered.
"""

import ssl
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hub_server import Hub  # noqa: E402

ADDRESS = ("127.0.0.9", 443)
REFS = ("main", "v1.0")


def main(directory, ready):
    """Serves until it is killed."""
    hub = Hub()
    for repository in sorted((directory / "repositories").glob("*/*")):
        files = {
            path.relative_to(repository).as_posix(): path.read_bytes()
            for path in sorted(repository.rglob("*"))
            if path.is_file()
        }
        hub.commit(f"{repository.parent.name}/{repository.name}", files, refs=REFS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "hub.cert", directory / "hub.key")
    server = ThreadingHTTPServer(ADDRESS, hub.server.RequestHandlerClass)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=lambda: ready.write_text("ready\n")).start()
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
