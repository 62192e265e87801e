"""A camera on 127.0.0.1: an MJPEG stream over HTTP, as network cameras send it, and a photo."""

import contextlib
import http.server
from collections.abc import Iterator

import cv2
import numpy as np
from local_server import serving

SIZE = (64, 96)


def grey_level(number: int) -> int:
    """Of frame `number`; JPEG keeps it within 2."""
    return 20 + 20 * (number % 10)


def _jpeg(number: int) -> bytes:
    pixels = np.full((*SIZE, 3), grey_level(number), np.uint8)
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
        with contextlib.suppress(OSError):
            while self.server.last is None or number < self.server.last:
                jpeg = _jpeg(number)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                number += 1

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def camera(last: int | None = None) -> Iterator[str]:
    """The address of a camera that sends `last` frames, or does not end."""
    with serving(_Camera) as server:
        server.last = last
        yield f"http://127.0.0.1:{server.server_address[1]}/video.mjpg"
