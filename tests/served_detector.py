"""The smallest detector behind the web server, in a process of its own, and what asks it.

Run by itself it serves until Ctrl-C; with an argument, it first sleeps where it would compile.
"""

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Served(NamedTuple):
    """A server: its process and its port on 127.0.0.1."""

    process: subprocess.Popen
    port: int

    def ask(self, method: str, path: str, body=None, headers=None) -> tuple[int, dict, dict]:
        """Status, what JSON the answer is, and its headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), dict(answer.headers)

    def detect(self, data, name: str = "image", **headers: str) -> tuple[int, dict]:
        """Status and answer for an image."""
        return self.ask("POST", f"/detect?name={name}", data, headers)[:2]

    @property
    def memory(self) -> int:
        """Bytes of the process that are in memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Served]:
    """A server that listens; with no arguments, one that has compiled."""
    command = [sys.executable, __file__, *arguments]
    root = Path(__file__).parent.parent
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        address = next(line for line in process.stdout if "http://" in line)
        server = Served(process, int(address.split(":")[3].split()[0]))
        while not arguments and not server.ask("GET", "/model")[1]["ready"]:
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)
        process.stdout.close()


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent.parent)]
    from small_detector import small_network

    from retinanet_jax.cli import app
    from retinanet_jax.inference import predict
    from retinanet_jax.inference.predict import Trained
    from retinanet_jax.runtime import compilation_cache as compilation
    from retinanet_jax.serving.sweep import IouSweep

    predict.read_trained = lambda _: Trained(*small_network())
    compilation.keep_compilations = lambda _: None
    if sys.argv[1:]:
        IouSweep.warm_up = lambda _: time.sleep(60)
    app.main(["serve", "--model=runs/small", "--port=0"])
