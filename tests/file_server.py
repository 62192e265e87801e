"""A web server on this machine that has the files of a folder."""

import base64
import contextlib
import functools
import http.server
from collections.abc import Iterator
from pathlib import Path

from local_server import serving


class Files(http.server.SimpleHTTPRequestHandler):
    """The files; with a password, only for those who tell it."""

    password = None  # what the server wants to be told, if anything

    def do_GET(self):
        wanted = self.password and f"Basic {base64.b64encode(self.password).decode()}"
        if wanted == self.headers.get("Authorization"):
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="photos"')
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder: Path, handler: type[Files] = Files) -> Iterator[str]:
    """The address of the folder."""
    with serving(functools.partial(handler, directory=str(folder))) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"
