"""Reads frames of webcams, by number, and of URLs: RTSP, HTTP and others that FFmpeg reads."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.video import frame_rate, rgb_frames

_SCHEMES = r"(rtsps?|rtmp|https?|udp|tcp|srt)://"
# Milliseconds that a server has for its first and for each further answer.
_TIMEOUTS = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 10_000]


def is_live(source: Any) -> bool:
    """Returns whether a source is a webcam number, or a URL that OpenCV's FFmpeg may read."""
    if isinstance(source, int):
        return True
    return isinstance(source, str) and bool(re.match(rf"{_SCHEMES}|\d+$", source))


def without_password(address: str) -> str:
    """Returns an address without the name and password of a user."""
    return re.sub(r"//[^/@]*@", "//", address)


def file_stem(name: str) -> str:
    """Returns a webcam number or an address as part of a file name."""
    return f"camera_{name}" if name.isdecimal() else re.sub(r"\W+", "_", name)


class LiveVideo:
    """The RGB frames of a camera or URL, in order, until it ends; for one iteration.

    A camera does not end: stop the iteration. Frames wait while the reader is busy, as far as the
    sender buffers them.

    Attributes:
      name: the number or URL, without a password in it.
      rate: frames per second.
      length: number of frames that a file behind a URL declares; 0: unknown.

    Raises:
      DataError: the camera does not exist, or the URL is not an image or a video.
    """

    def __init__(self, source: int | str):
        text = str(source)
        self.name = without_password(text)
        with _silent():
            if text.isdecimal():
                self._capture = cv2.VideoCapture(int(text))
            else:
                self._capture = cv2.VideoCapture(text, cv2.CAP_FFMPEG, _TIMEOUTS)
        if not self._capture.isOpened():
            raise self._error("cannot be opened")
        self.rate = frame_rate(self._capture)
        self.length = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    @property
    def stem(self) -> str:
        """The name as part of a file name."""
        return file_stem(self.name)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        count = 0
        try:
            for frame in rgb_frames(self._capture):
                count += 1
                yield frame
        finally:
            self._capture.release()
        if not count:
            raise self._error("has no frames")

    def _error(self, what: str) -> DataError:
        if self.name.isdecimal():
            fix = "connect the camera, close other programs that use it, or name another number"
            return DataError("webcam", f"webcam {self.name}", "", what, fix)
        fix = "check the address, and that the server runs and sends an image or a video"
        return DataError("video stream", self.name, "", what, fix)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without OpenCV's own messages: an error says the same."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
