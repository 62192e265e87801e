"""Sends damaged requests to the page to try a detector: it answers, and detects again after each.

    python scripts/fuzz_page.py --seconds=300

A server with the smallest detector runs in a process of its own. Requests are calls with random
values, damaged uploads, paths of the server's own files, and random bytes. A failure is printed
with the seed that repeats it (--seed=SEED --count=1): a crash, a request without an answer, the
content of another file, more than 2 GB of memory.
"""

import argparse
import collections
import contextlib
import json
import random
import socket
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from fuzz import RESIDENT, any_value, change_json, damaged, images
from served_detector import Served, served

TIMEOUT = 60  # seconds without an answer are a hang
SECRET = "content of a file that was never uploaded"
API = "gradio_api"
CALLS = ("detect", "detect_video", "lambda", "nothing")
UPLOADED = {"_type": "gradio.FileData"}


def answer(request: urllib.request.Request | str) -> tuple[int, bytes]:
    """Status and body; errors of HTTP are answers as well."""
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def call(url: str, name: str, body: bytes) -> str:
    """Calls a function of the page: 'complete', 'error' or 'refused'."""
    request = urllib.request.Request(f"{url}/{API}/call/{name}", body)
    request.add_header("Content-Type", "application/json")
    status, text = answer(request)
    if status != 200:
        return "refused"
    event = json.loads(text)["event_id"]
    _, stream = answer(f"{url}/{API}/call/{name}/{event}")
    assert SECRET.encode() not in stream, "the content of another file"
    assert b"event: complete" in stream or b"event: error" in stream, stream[:500]
    return "complete" if b"event: complete" in stream else "error"


def upload(url: str, name: str, content: bytes) -> str | None:
    """The path of an uploaded file on the server; None if it is refused."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode("utf-8", "replace") + content + b"\r\n--x--\r\n"
    request = urllib.request.Request(f"{url}/{API}/upload", body)
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    status, text = answer(request)
    return json.loads(text)[0] if status == 200 else None


def send_values(rng: random.Random, url: str, secret: Path) -> str:
    path = rng.choice((str(secret), "/etc/passwd", any_value(rng)))
    data = [{"path": path, "meta": UPLOADED}, 0.1, 0.5, []]
    body = change_json(rng, json.dumps({"data": data}).encode())
    return call(url, rng.choice(CALLS), body)


def send_image(rng: random.Random, url: str, secret: Path) -> str:
    name = rng.choice(("a.png", "a.jpg", "../../a.png", "a", "a.svg", "x" * 300 + ".png"))
    path = upload(url, name, damaged(rng, rng.choice(images())))
    if path is None:
        return "refused"
    data = [{"path": path, "meta": UPLOADED}, rng.random(), rng.random(), []]
    return call(url, rng.choice(("detect", "detect", "detect_video")), _json(data))


def read_path(rng: random.Random, url: str, secret: Path) -> str:
    prefix = rng.choice((f"{API}/file=", f"{API}/", "", "static/", "assets/", f"{API}/file/"))
    place = rng.choice((str(secret), f"../../../../../..{secret}", "/etc/passwd", any_value(rng)))
    quoted = urllib.parse.quote(str(place), safe=rng.choice(("", "/")), errors="replace")
    status, text = answer(f"{url}/{prefix}{quoted}")
    assert SECRET.encode() not in text and b"root:x:" not in text, "the content of another file"
    return "complete" if status == 200 else "refused"


def send_bytes(rng: random.Random, url: str, secret: Path) -> str:
    host = urllib.parse.urlsplit(url)
    request = (
        f"POST /{API}/call/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{{}}"
    )
    address = host.hostname, host.port
    # The server may have closed the connection. A timeout stays an error.
    closed = contextlib.suppress(ConnectionError)
    with socket.create_connection(address, timeout=TIMEOUT) as connection, closed:
        connection.sendall(damaged(rng, request.encode()))
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    return "refused"


KINDS = (send_values, send_image, read_path, send_bytes)


def _json(data: list) -> bytes:
    return json.dumps({"data": data}).encode()


def check(server: Served, seed: int, secret: Path) -> str:
    """Sends one request; raises for everything but an answer."""
    rng = random.Random(seed)
    try:
        result = rng.choice(KINDS)(rng, server.url, secret)
    except (ConnectionError, urllib.error.URLError) as error:
        if isinstance(getattr(error, "reason", error), TimeoutError):
            raise
        result = "cut off"
    assert server.process.poll() is None, "the server has ended"
    assert server.memory < RESIDENT, f"{server.memory / 1e9:.1f} GB"
    return result


def fuzz(seed: int, count: int, seconds: float) -> int:
    """Sends `count` requests, a valid one after every tenth; returns the number of failures."""
    results, failures = collections.Counter(), 0
    with tempfile.TemporaryDirectory() as folder, served() as server:
        secret = Path(folder) / "secret.txt"
        secret.write_text(SECRET, encoding="utf-8")
        end, most = time.monotonic() + seconds, 0
        for number in range(seed, seed + count):
            if time.monotonic() > end:
                break
            try:
                results[check(server, number, secret)] += 1
                most = max(most, server.memory)
                if number % 10 == 0:
                    path = upload(server.url, "valid.png", images()[0])
                    body = _json([{"path": path, "meta": UPLOADED}, 0.1, 0.5, []])
                    assert call(server.url, "detect", body) == "complete", "a valid request fails"
            except Exception:
                failures += 1
                print(f"--seed={number} --count=1\n{traceback.format_exc()}", flush=True)
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(results.items()))
    print(f"page: {listed}; the server has needed up to {most / 1e6:.0f} MB", flush=True)
    return failures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(fuzz(given.seed, given.count, given.seconds) > 0)


if __name__ == "__main__":
    main()
