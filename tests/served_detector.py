"""The smallest detector behind the web server, in a process of its own.

Run by itself it serves until Ctrl-C; with an argument, it first sleeps where it would compile.
"""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Served(NamedTuple):
    """A server: its process and its address."""

    process: subprocess.Popen
    url: str

    @property
    def memory(self) -> int:
        """Resident memory of the process in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="utf-8").split()[1]
        return int(pages) * 4096


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Served]:
    """A server that listens; with no arguments, one that has compiled."""
    command = [sys.executable, __file__, *arguments]
    root = Path(__file__).parent.parent
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        address = next(line for line in process.stdout if "http://" in line)
        if not arguments:
            next(line for line in process.stdout if line.startswith("ready"))
        yield Served(process, next(word for word in address.split() if word.startswith("http")))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)
        process.stdout.close()


if __name__ == "__main__":
    import time

    sys.path[:0] = [str(Path(__file__).parent.parent)]
    from small_detector import small_network

    from retinanet_jax.cli import app, serve
    from retinanet_jax.inference.nms_sweep import NmsSweep
    from retinanet_jax.inference.trained import Trained
    from retinanet_jax.runtime import compilation_cache

    serve.read_model = lambda _: Trained(*small_network())
    compilation_cache.keep_compilations = lambda _: None
    if sys.argv[1:]:
        NmsSweep.warm_up = lambda _: time.sleep(60)
    app.main(["serve", "--model=runs/small", "--port=0"])
