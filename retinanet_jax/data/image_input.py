"""What a person calls an image, as 8-bit RGB: a path, a Pillow image, an array."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.images import decode, from_pillow, read_file

ImageLike = str | Path | Image.Image | np.ndarray | Any
"""The last: what numpy makes an array of, such as a tensor on the CPU."""

_IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".avif"),
)


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in _IMAGE_SUFFIXES


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its folders, sorted, but hidden ones."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not _is_hidden(path.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def is_one_image(value: Any) -> bool:
    """Whether this is, or should be, an image and not a sequence of them, as an array [b h w c]."""
    if isinstance(value, str | bytes | Path | Image.Image) or not hasattr(value, "__iter__"):
        return True
    return hasattr(value, "__array__") and getattr(value, "ndim", 0) < 4


def read_image(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image as RGB.

    Args:
      image: a file, see data/images.py; a Pillow image, of any mode; an array of uint8, RGB
        [h w 3], RGB with alpha [h w 4], which is left out as in files, or grey [h w] or [h w 1].
        (OpenCV's arrays are BGR: give `array[:, :, ::-1]`.)

    Raises:
      DataError: a file that is missing or no image, or pixels of another kind.
    """
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        return decode(read_file(path), str(image))
    if isinstance(image, Image.Image):
        try:
            return from_pillow(image)
        except (ValueError, OSError) as error:
            what = f"{image.mode} of {image.width} x {image.height}: {error}"
            raise DataError("image", "Pillow image", "", what, "convert it to RGB") from error
    if not hasattr(image, "__array__"):
        what = f"is of type {type(image).__name__}"
        fix = "give a path, a Pillow image or an array; or a list of these"
        raise DataError("image", "image", "", what, fix)
    return _rgb(np.asarray(image))


def _rgb(array: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    colored = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (grey or colored) or not array.size:
        what = f"is {array.dtype} of shape {array.shape}"
        fix = "give uint8 from 0 to 255, RGB of shape (height, width, 3) or grey (height, width)"
        raise DataError("array", "image", "", what, fix)
    if grey:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return array[:, :, :3]
