"""Encoded images: decoded by OpenCV, measured from their headers without decoding."""

import struct

import cv2
import numpy as np
from jaxtyping import UInt8

from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.report import DataError

# Boxes of COCO and of most tools belong to the picture as it is stored, before EXIF rotation.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_HEADER_BYTES = 1 << 16

# One thread per image: the pipeline has its own threads, one image each.
cv2.setNumThreads(0)


def decode(data: bytes, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a JPEG, PNG or whatever else OpenCV reads to RGB; EXIF orientation is ignored.

    Raises:
      DataError: the bytes are no image or a truncated one; `where` names it.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error:
        image = None
    if image is None:
        raise DataError(
            "undecodable image",
            where,
            "",
            f"OpenCV cannot decode its {len(data)} bytes",
            "it is truncated or no image: copy it again or take it out of the annotations",
        )
    return image


def header_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) as the header of a JPEG or PNG says, None if it says nothing."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return height, width
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    return None


def image_size(data: bytes, where: str) -> tuple[int, int]:
    """(height, width) in pixels; decodes only what is neither JPEG nor PNG.

    Raises:
      DataError: no size can be read; `where` names the image.
    """
    return header_size(data) or decode(data, where).shape[:2]


def file_size(path: AnyPath) -> tuple[int, int]:
    """(height, width) of an image file; reads its first 64 KiB where that is enough.

    Raises:
      DataError: the file is missing, unreadable or no image.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
            return header_size(head) or image_size(head + file.read(), str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise missing_image(path, error) from error


def read_file(path: AnyPath) -> bytes:
    """The bytes of an image file.

    Raises:
      DataError: the file is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise missing_image(path, error) from error


def missing_image(path: AnyPath, error: Exception) -> DataError:
    """The DataError for an image file that cannot be read."""
    what = getattr(error, "strerror", None) or str(error)
    mend = "put the file there or take the image out of the annotations"
    return DataError("missing image", path, "", what, mend)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walks the JPEG's segments to the frame header (ITU T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 1 if marker == 0xFF else 2  # fill byte, or a marker without a segment
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return (height, width) if height and width else None
        elif marker == 0xDA:
            return None
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None
