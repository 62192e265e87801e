"""Sizes, kinds and ends of encoded images, read without decoding: JPEG, PNG, WebP, BMP, HEIC."""

import struct
from collections.abc import Iterator

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
# Of the formats that data/images.py decodes.
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".jp2", ".avif", *HEIC_SUFFIXES),
    )
)
_PNG = b"\x89PNG\r\n\x1a\n"
# Kinds of HEIF files by their contents: HEVC, in one image or in several (ISO 23008-12, annex B).
_HEVC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_ANY_BRANDS = (b"mif1", b"msf1")


def header_size(data: bytes) -> tuple[int, int] | None:
    """Returns (height, width) from the header of a JPEG or PNG; None if there is no such header."""
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return height, width
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    return None


def is_common(data: bytes) -> bool:
    """Returns whether OpenCV reads the image like Pillow, but faster.

    These are JPEG, and PNG, WebP and BMP without animation.
    """
    if data[:8] == _PNG:
        return data.find(b"acTL", 0, data.find(b"IDAT")) < 0
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return not (data[12:16] == b"VP8X" and data[20:21] and data[20] & 2)
    return data[:2] in (b"\xff\xd8", b"BM")


def jpeg_has_exif(data: bytes) -> bool:
    """Returns whether a JPEG has an EXIF segment."""
    segments = (at for marker, at in _jpeg_segments(data) if marker == 0xE1)
    return any(data[at + 4 : at + 8] == b"Exif" for at in segments)


def jpeg_has_end(data: bytes) -> bool:
    """Returns whether an end marker follows the first scan.

    An end marker before it may be that of a thumbnail.
    """
    scan = next((at for marker, at in _jpeg_segments(data) if marker == 0xDA), 0)
    return data.rfind(b"\xff\xd9", scan) >= 0


def png_has_all_chunks(data: bytes) -> bool:
    """Returns whether every chunk before the end (IEND) is as long as it declares."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IEND":
            return True
        at += 12 + length
    return False


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset) of a JPEG's segments up to the first scan (ITU T.81, B.2)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 1 if marker == 0xFF else 2  # fill byte, or a marker without a segment
            continue
        yield marker, at
        if marker == 0xDA:
            return
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]


def is_heic(data: bytes) -> bool:
    """Returns whether bytes begin like HEIC (HEIF with HEVC), as many phones write it; not AVIF."""
    if data[4:8] != b"ftyp":
        return False
    brand, others = data[8:12], data[16 : min(int.from_bytes(data[:4]), 256)]
    return brand in _HEVC_BRANDS or (brand in _ANY_BRANDS and b"avif" not in others)
