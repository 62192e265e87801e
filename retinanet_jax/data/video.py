"""Videos as streams of frames, read and written by OpenCV."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from retinanet_jax.data.data_errors import DataError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts")
# FFmpeg prints a line for each damaged block, hundreds for one video; OpenCV reads the variable
# when it opens the first one. 8: errors that end FFmpeg's work.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")

_CODECS = {
    ".avi": "mp4v",
    ".mp4": "mp4v",
    ".webm": "VP80",
}  # every browser plays VP8, which is slower to write
_DEFAULT_RATE = 25.0  # frames per second, where the file has neither a rate nor timestamps
# Recordings of browsers and screens, without a constant rate, declare 1000 or 90000.
_PLAUSIBLE_RATE = 240.0
_TIMED_FRAMES = 100


def is_video(path: str | Path) -> bool:
    """Returns whether a file is a video by its suffix."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


class Video:
    """The RGB frames of a video, upright according to its rotation; each iteration reads it again.

    Attributes:
      path: the file.
      name: its path as text.
      rate: frames per second.
      length: number of frames that the file declares, which may be an estimate; 0: unknown.

    Raises:
      DataError: the file is missing or not a video that OpenCV's FFmpeg can read. An iteration
        raises it if the video ends early, because the file is damaged or incomplete.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self.name = str(self.path)
        capture = self._open()
        declared = capture.get(cv2.CAP_PROP_FPS)
        length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.rate = _rate_of_file(capture)
        if declared > 0:  # FFmpeg's estimate is the duration times the declared rate
            length *= self.rate / declared
        self.length = max(round(length), 0)
        capture.release()

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        capture, count = self._open(), 0
        try:
            for frame in rgb_frames(capture):
                count += 1
                yield frame
        finally:
            capture.release()
        # The declared length may be off by a few frames.
        if count < 0.95 * self.length or not count:
            what = f"ends after {count} of {self.length} frames"
            fix = "the file is damaged or incomplete: copy it again, or use the frames before"
            raise DataError("short video", self.path, "", what, fix)

    def _open(self) -> cv2.VideoCapture:
        if not self.path.is_file():
            fix = "name an existing file"
            raise DataError("missing video", self.path, "", "does not exist", fix)
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            fix = "it is damaged or of an unknown type: convert it to H.264 in .mp4"
            raise DataError("unreadable video", self.path, "", "cannot be opened", fix)
        return capture


def rgb_frames(capture: cv2.VideoCapture) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames until the end."""
    while (frame := capture.read()[1]) is not None:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Returns the declared frames per second, or a default if that is implausible."""
    declared = capture.get(cv2.CAP_PROP_FPS)
    return declared if 0 < declared <= _PLAUSIBLE_RATE else _DEFAULT_RATE


def _rate_of_file(capture: cv2.VideoCapture) -> float:
    """Frames per second: as declared, or, where that is implausible, by the timestamps."""
    declared = capture.get(cv2.CAP_PROP_FPS)
    if 0 < declared <= _PLAUSIBLE_RATE:
        return declared
    times = []
    while len(times) < _TIMED_FRAMES and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
    if len(times) > 1 and times[-1] > times[0]:
        return 1000 * (len(times) - 1) / (times[-1] - times[0])
    return declared if declared > 0 else _DEFAULT_RATE


class VideoWriter:
    """Writes frames to a file as MPEG-4 (.mp4, .avi) or VP8 (.webm); the first frame sets the size.

    A context manager.

    Raises:
      DataError: the file cannot be written, e.g. because the disk is full; detected at the end.
    """

    def __init__(self, path: Path, rate: float | int):
        self.path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None
        self._count = 0

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if not self._is_whole():
            self.path.unlink(missing_ok=True)
            if kind is None:
                raise self._unwritable("the disk may be full: free some space")

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Appends a frame; odd sides lose a row or column, since the codecs need even sides."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix])
            self._writer = cv2.VideoWriter(str(self.path), code, self._rate, (width, height))
            if not self._writer.isOpened():
                raise self._unwritable("name a folder that can be written")
        self._writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))
        self._count += 1

    def _is_whole(self) -> bool:
        """Whether the file can be opened; OpenCV does not report a failed write."""
        capture = cv2.VideoCapture(str(self.path))
        length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        return length >= 0.95 * self._count

    def _unwritable(self, fix: str) -> DataError:
        return DataError("video", self.path, "", "cannot be written", fix)
