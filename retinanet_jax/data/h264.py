"""Writes H.264 videos, which every browser plays, with PyAV (the extra [video])."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.video import VideoWriter

_QUALITY = "20"  # of x264, from 0 (lossless) to 51; its default is 23


def open_video_writer(path: Path, rate: float | int) -> "VideoWriter | H264Writer":
    """Opens an H.264 writer for .mp4 if PyAV has an encoder, or else OpenCV's MPEG-4 or VP8."""
    if path.suffix == ".mp4" and has_h264():
        return H264Writer(path, rate)
    return VideoWriter(path, rate)


def has_h264() -> bool:
    """Returns whether PyAV is installed and has libx264."""
    try:
        import av

        return "libx264" in av.codecs_available
    except ImportError:
        return False


class H264Writer:
    """Writes frames to an .mp4 file; the first frame sets the size. A context manager.

    Raises:
      DataError: the file cannot be written, e.g. because the disk is full.
    """

    def __init__(self, path: Path, rate: float | int):
        self.path = path
        self._rate = Fraction(rate).limit_denominator(100_000)
        self._container: Any = None

    def __enter__(self) -> "H264Writer":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._container is None:
            return
        with self._errors(raising=kind is None):
            try:
                self._encode(None)  # what the encoder still holds
            finally:
                self._container.close()

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Appends a frame; odd sides lose a row or column, since the codec needs even sides."""
        import av

        height, width = (side - side % 2 for side in frame.shape[:2])
        with self._errors():
            if self._container is None:
                self._open(height, width)
            pixels = np.ascontiguousarray(frame[:height, :width])
            self._encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))

    def _open(self, height: int, width: int) -> None:
        import av

        # The index at the beginning: a browser plays before it has the whole file.
        self._container = av.open(str(self.path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"  # browsers play no other
        self._stream.options = {"crf": _QUALITY}

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    @contextlib.contextmanager
    def _errors(self, raising: bool = True) -> Iterator[None]:
        """Turns an error of FFmpeg into a DataError, or drops it; the broken file is deleted."""
        try:
            yield
        except OSError as error:
            self.path.unlink(missing_ok=True)
            if raising:
                fix = "name a folder that can be written, on a disk with space"
                what = f"cannot be written ({error.strerror or error})"
                raise DataError("video", self.path, "", what, fix) from error
