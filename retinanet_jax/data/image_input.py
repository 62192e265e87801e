"""Reads images as a user passes them (a path, a Pillow image, an array) as 8-bit RGB.

EXIF orientation is applied, as in image viewers; for datasets see `data.exif` and data/images.py.
Detections are in pixels of the image as shown.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from retinanet_jax.data.annotations.folder_files import is_hidden
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES, is_heic
from retinanet_jax.data.images import decode, exif_orientation, from_pillow, turn
from retinanet_jax.data.live_video import is_live
from retinanet_jax.data.video import is_video

ImageLike = str | Path | Image.Image | np.ndarray | Any
"""The last: anything that numpy turns into an array, such as a tensor on the CPU."""

# First bytes of the formats that data/images.py decodes.
_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF....WEBP|BM....\0{4}|II\*\0|MM\0\*|....jP  |....ftypavif"
    rb"|P[56]\s",
    re.DOTALL,
)


def is_image(path: Path) -> bool:
    """Returns whether a file is an image: by its suffix, else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:  # such as a dead link; reading it as an image reports why
        return not suffix
    return begins_image(head)


def begins_image(head: bytes) -> bool:
    """Returns whether the first bytes of a file are those of an image."""
    return _SIGNATURE.match(head) is not None or is_heic(head)


def files_below(folder: Path) -> list[Path]:
    """Returns all files below a folder, sorted: with dead links, but not those of `is_hidden`."""
    paths = (path for path in folder.rglob("*") if path.is_file() or _is_dead_link(path))
    return sorted(path for path in paths if not _is_hidden(path.relative_to(folder)))


def _is_dead_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _is_hidden(path: Path) -> bool:
    return any(map(is_hidden, path.parts))


def is_one_image(value: Any) -> bool:
    """Returns whether a value is one image, not a sequence of images or an array [b h w c]."""
    if isinstance(value, str | bytes | Path | Image.Image) or not hasattr(value, "__iter__"):
        return True
    if hasattr(value, "read"):  # an open file, whose items are lines
        return True
    return hasattr(value, "__array__") and getattr(value, "ndim", 0) < 4


def read_image(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of an image as RGB, rotated according to its EXIF orientation.

    Args:
      image: a file, see data/images.py; a Pillow image of any mode; an array of uint8, RGB
        [h w 3], RGB with alpha [h w 4], whose alpha is ignored as in files, or grey [h w] or
        [h w 1]. (OpenCV's arrays are BGR: pass `array[:, :, ::-1]`.)

    Raises:
      DataError: a file that is missing or not an image, or an array of another type or shape.
    """
    if isinstance(image, str | Path):
        return _read_named(image)
    if isinstance(image, Image.Image):
        try:
            return _turned(image)
        except (ValueError, OSError) as error:
            what = f"{image.mode} of {image.width} x {image.height}: {error}"
            raise DataError("image", "Pillow image", "", what, "convert it to RGB") from error
    if not hasattr(image, "__array__"):
        what = f"is of type {type(image).__name__}"
        fix = "pass a path, a Pillow image, an array, or a list of these"
        if isinstance(image, bytes) or hasattr(image, "read"):
            fix += "; PIL.Image.open reads open files and io.BytesIO(bytes)"
        raise DataError("image", "image", "", what, fix)
    return _rgb(np.asarray(image))


def _read_named(named: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a file; an error says what else the name stands for."""
    path = Path(named).expanduser()
    try:
        data = path.read_bytes() if path.is_file() else None
    except (OSError, ValueError) as error:  # ValueError: a null character
        what = getattr(error, "strerror", None) or str(error)
        raise DataError("image", named, "", what, "name a file that you can read") from error
    if data is None:
        raise DataError("image", named, "", *_not_a_file(named, path))
    try:
        return decode_shown(data, str(named))
    except DataError as error:
        if is_video(path):
            raise DataError("image", named, "", "is a video", _STREAM) from error
        raise


_STREAM = "pass it to Detector.stream, not in a list: it reads videos, folders and URLs"


def _not_a_file(named: str | Path, path: Path) -> tuple[str, str]:
    """What a name stands for, and the fix."""
    if path.is_dir():
        return "is a folder", _STREAM
    if path.exists():
        return "is a pipe or a device", "save the image as a file, and pass that"
    if is_live(named):
        return "is a webcam" if str(named).isdecimal() else "is a URL", _STREAM
    what = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
    return what, "name an existing image"


def decode_shown(data: bytes, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes the bytes of an image file to RGB, turned as its EXIF orientation says.

    Raises:
      DataError: as data/images.py::decode.
    """
    return decode(data, where, exif_orientation(data))


def _turned(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    pixels = from_pillow(image)  # of TIFF, Pillow turns the pixels now, and drops the orientation
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return turn(pixels, orientation) if orientation in range(2, 9) else pixels


def _rgb(array: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    colored = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (grey or colored) or not array.size:
        what = f"is {array.dtype} of shape {array.shape}"
        fix = "pass uint8 from 0 to 255, RGB of shape (height, width, 3) or grey (height, width)"
        raise DataError("array", "image", "", what, fix)
    if grey:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return array[:, :, :3]
