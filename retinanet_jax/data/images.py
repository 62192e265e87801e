"""Encoded images: sizes from headers, EXIF orientation, decoding to 8-bit RGB.

OpenCV decodes JPEG, PNG, WebP and BMP; libheif HEIC; Pillow the other formats, and the first frame
of animations. How pixels of other kinds are converted:

    16 bit     the upper 8 bits (scaled, not clipped); 32-bit and float pixels are not supported
    grey       three equal channels
    alpha      dropped; colours are kept as stored
    CMYK       RGB, also where Adobe stores it inverted
    palette    its colours
    EXIF       `decode` turns the pixels by the orientation that it is given; 1 keeps them as
               stored. TIFF and HEIC are always turned: there, orientation is part of the format.
"""

import errno
import functools
import io
from importlib.util import find_spec

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import GIT_LFS, DataError
from retinanet_jax.data.image_headers import (
    header_size,
    is_common,
    is_heic,
    jpeg_has_end,
    jpeg_has_exif,
    png_has_all_chunks,
)

# Half a gigabyte of RGB, and Pillow's own limit. A small file can claim more and fill the memory;
# an image that large has to be cut into tiles for a detector anyway.
MAX_PIXELS = 178_956_970
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_HEADER_BYTES = 1 << 16
_STRIP = 1024  # rows
# An allow-list: some readers of Pillow start other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_EXIF_ORIENTATION = 0x0112

# One thread per image: the pipeline has its own threads.
cv2.setNumThreads(0)


def decode(data: bytes, where: str, orientation: int = 1) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image to RGB; conversions are listed at the top of this module.

    Args:
      data: the encoded file.
      where: names the image in errors.
      orientation: EXIF orientation by which to rotate the pixels, see `turn`; 1 keeps them.

    Raises:
      DataError: the bytes are not an image or are truncated, or the image has over MAX_PIXELS.
    """
    size = image_size(data, where)
    try:
        image = _by_opencv(data) if is_common(data) else _by_pillow(data)
    except Exception as error:  # decoders raise any kind of error for a broken file
        raise _undecodable(where, data, str(error)) from error
    if image.shape[:2] != size:
        raise _undecodable(where, data, f"header {size}, pixels {image.shape[:2]}")
    return turn(image, orientation)


def turn(image: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "a b 3"]:
    """Returns the stored pixels as a viewer shows them, by EXIF orientation 1 .. 8 (tag 0x0112).

    Orientations 5 to 8 swap height and width.
    """
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Returns (height, width) after `turn`."""
    return size[::-1] if orientation >= 5 else size


def image_size(data: bytes, where: str) -> tuple[int, int]:
    """Returns (height, width) in pixels, from the header.

    Raises:
      DataError: no size can be read, or it is 0 or over MAX_PIXELS; `where` names the image.
    """
    size = header_size(data)
    if size is None:
        try:
            with _open(data) as image:
                size = image.height, image.width
        except Image.DecompressionBombError as error:
            raise _too_large(where, str(error)) from error
        except Exception as error:
            why = f"none of {', '.join(_FORMATS)} and HEIC, or its header is broken"
            raise _undecodable(where, data, why) from error
    return _checked_size(size, where)


def file_size(path: AnyPath) -> tuple[int, int]:
    """Returns the stored (height, width) of an image file, from its first 64 KiB if possible.

    Raises:
      DataError: the file is missing or unreadable, or its size is invalid as for image_size.
    """
    try:
        with _regular(path).open("rb") as file:
            head = file.read(_HEADER_BYTES)
            size = header_size(head)
            rest = b"" if size else file.read()
    except (OSError, ValueError) as error:
        raise missing_image(path, error) from error
    return _checked_size(size, str(path)) if size else image_size(head + rest, str(path))


def exif_orientation(data: bytes) -> int:
    """Returns the EXIF orientation of an encoded image, 1 to 8; 1 if it has no valid one.

    It is also 1 for TIFF and HEIC, whose decoders rotate the pixels.
    """
    if data[:2] == b"\xff\xd8" and not jpeg_has_exif(data):
        return 1
    if data[:8] == b"\x89PNG\r\n\x1a\n" and b"eXIf" not in data:  # Pillow would decode all of it
        return 1
    try:
        with _open(data) as image:
            value = 1 if image.format == "TIFF" else image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # broken EXIF raises any kind of error, and such an image is shown as stored
        return 1
    return value if value in range(2, 9) else 1


def is_animated(data: bytes) -> bool:
    """Returns whether a decodable image is an animation, of which only the first frame is read."""
    if is_common(data):
        return False
    with _open(data) as image:
        return getattr(image, "is_animated", False)


def changes_of(data: bytes) -> tuple[str, ...]:
    """Returns what decoding changes in a decodable image, for a report."""
    changes = ["animated, the first image used"] if is_animated(data) else []
    bits = _used_bits(data)
    if 0 < bits <= 12:  # as 12-bit cameras write it
        changes.append(
            "16-bit image that uses at most 12 bits, read as dark: multiply its values by 16"
        )
    return tuple(changes)


def _used_bits(data: bytes) -> int:
    """How many bits the brightest pixel of a 16-bit image needs; 0 for other images."""
    is_png = data[:8] == b"\x89PNG\r\n\x1a\n"
    if (is_png and data[24:25] != b"\x10") or not (is_png or data[:4] in (b"II*\0", b"MM\0*")):
        return 0
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return 0 if image is None or image.dtype != np.uint16 else int(image.max()).bit_length()


def read_file(path: AnyPath) -> bytes:
    """Returns the bytes of an image file.

    Raises:
      DataError: the file is missing or unreadable.
    """
    try:
        return _regular(path).read_bytes()
    except (OSError, ValueError) as error:
        raise missing_image(path, error) from error


def missing_image(path: AnyPath, error: Exception) -> DataError:
    """Returns the DataError for an image file that cannot be read."""
    what = getattr(error, "strerror", None) or str(error)
    fix = "restore the file or remove the image from the annotations"
    return DataError("missing image", path, "", what, fix)


def _regular(path: AnyPath) -> AnyPath:
    """The path, if it is a regular file: reading a pipe or a device may never end."""
    if not path.is_file():
        what = "No such file (folders, pipes and devices are not read)"
        raise FileNotFoundError(errno.ENOENT, what)
    return path


def _checked_size(size: tuple[int, int], where: str) -> tuple[int, int]:
    height, width = size
    if min(size) < 1:
        what = f"its header states height x width {height} x {width}"
        raise DataError("undecodable image", where, "", what, "save it again or remove it")
    if height * width > MAX_PIXELS:
        raise _too_large(where, f"{height} x {width}, height x width")
    return size


def _too_large(where: str, size: str) -> DataError:
    what = f"has more than {MAX_PIXELS:,} pixels ({size})"
    return DataError("image too large", where, "", what, "cut it into tiles or scale it down")


def _undecodable(where: str, data: bytes, why: str) -> DataError:
    what = f"its {len(data)} bytes cannot be decoded ({why})" if data else "is an empty file"
    fix = "it is truncated or not an image: copy it again or remove it"
    if data.startswith(GIT_LFS.encode()):
        what, fix = "is a Git LFS pointer, not the image", "run git lfs pull"
    if is_heic(data) and find_spec("pillow_heif") is None:
        what = "is a HEIC image, which needs pillow-heif"
        fix = "pip install 'retinanet_jax[heic]', or convert it to JPEG"
    return DataError("undecodable image", where, "", what, fix)


def _by_opencv(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    if data[:2] == b"\xff\xd8" and not jpeg_has_end(data):
        # Some versions of OpenCV fill the missing part with grey, without an error.
        raise ValueError("the end of the JPEG is missing")
    if data[:4] == b"\x89PNG" and not png_has_all_chunks(data):
        # OpenCV allocates what a chunk declares before it reads it, up to a gigabyte.
        raise ValueError("the end of the PNG is missing")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    if image is None:
        raise ValueError("OpenCV cannot read them")
    return image


def _by_pillow(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with _open(data) as image:
        return from_pillow(image)


def _open(data: bytes) -> Image.Image:
    """Opens an image by Pillow, which decodes it when its pixels are asked for."""
    if is_heic(data):
        _enable_heic()
        return Image.open(io.BytesIO(data), formats=("HEIF",))
    return Image.open(io.BytesIO(data), formats=_FORMATS)


@functools.cache
def _enable_heic() -> None:
    """Adds libheif to the decoders of Pillow, for the first HEIC image of a process."""
    import pillow_heif

    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False)  # threads: as OpenCV


def from_pillow(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of a Pillow image as RGB; the top of this module lists the conversions.

    Raises:
      ValueError: the pixels have 32 bits.
    """
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):  # Pillow would clip it
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _STRIP):  # converted at once, the image is there three times
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
        pixels[top : top + _STRIP] = np.asarray(strip.convert("RGB"))
    return pixels
