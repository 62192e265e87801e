"""A camera on 127.0.0.1: an MJPEG stream over HTTP, as network cameras send it, and a photo."""

import contextlib
import http.server
import threading
from collections.abc import Iterator

import cv2
import numpy as np
from local_server import serving

SIZE = (64, 96)


def color(number: int) -> tuple[int, int, int]:
    """RGB of all of frame `number`; JPEG keeps it within 3."""
    level = 20 + 20 * (number % 10)
    return level, 120, 220 - level


def _jpeg(number: int) -> bytes:
    pixels = np.full((*SIZE, 3), color(number)[::-1], np.uint8)  # OpenCV writes BGR
    return cv2.imencode(".jpg", pixels)[1].tobytes()


class _Camera(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/photo.jpg":
            jpeg = _jpeg(0)
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(jpeg)))
            self.end_headers()
            self.wfile.write(jpeg)
            return
        if self.path != "/video.mjpg":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        number = 0
        # Until the reader hangs up, or after the camera's last frame.
        with contextlib.suppress(OSError), self.server.reading:
            while self.server.last is None or number < self.server.last:
                jpeg = _jpeg(number)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                number += 1

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def camera(
    last: int | None = None, reading: contextlib.AbstractContextManager | None = None
) -> Iterator[str]:
    """The address of a camera that sends `last` frames, or does not end.

    The lock `reading` is held while it sends.
    """
    with serving(_Camera) as server:
        server.last, server.reading = last, reading or threading.Lock()
        yield f"http://127.0.0.1:{server.server_address[1]}/video.mjpg"
