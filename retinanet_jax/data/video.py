"""Videos as streams of frames, by OpenCV: read one after the other, and written."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from retinanet_jax.data.data_errors import DataError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts")
_DEFAULT_RATE = 25.0  # where the file tells none


def is_video(path: str | Path) -> bool:
    """Whether a file's name is that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


class Video:
    """The frames of a video, RGB, upright as its rotation mark says; each iteration reads it anew.

    Attributes:
      path: the file.
      rate: frames a second.
      length: number of frames as the file tells it, which may be an estimate; 0: it does not.

    Raises:
      DataError: the file is missing or no video that OpenCV's FFmpeg can read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _DEFAULT_RATE
        self.length = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        capture = self._open()
        try:
            while (frame := capture.read()[1]) is not None:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        if not self.path.is_file():
            fix = "name a file that is there"
            raise DataError("missing video", self.path, "", "No such file", fix)
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            fix = "it is damaged or of an unknown kind: convert it to H.264 in .mp4"
            raise DataError("unreadable video", self.path, "", "cannot be opened", fix)
        return capture


class VideoWriter:
    """Writes frames as MPEG-4 into an .mp4 file; a context. The first frame tells the size.

    Raises:
      DataError: the file cannot be written.
    """

    def __init__(self, path: Path, rate: float | int):
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Appends a frame; sides are cut to even numbers, as the format wants them."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, (width, height))
            if not self._writer.isOpened():
                fix = "name a folder that can be written"
                raise DataError("video", self._path, "", "cannot be written", fix)
        self._writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))
