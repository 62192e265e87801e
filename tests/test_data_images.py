"""Image decoding and header sizes against PIL, on real photographs and on broken files."""

import io
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet_jax.data import image_headers, image_input, images
from retinanet_jax.data.data_errors import DataError

PHONE = Path(__file__).parent / "golden/phone.heic"


def encoded(extension: str, size=(37, 53)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    return cv2.imencode(extension, pixels)[1].tobytes()


def test_photographs_decode_as_pil_does(shared_dir):
    paths = sorted((shared_dir / "data/coco_sample/images").glob("*.jpg"))[:12]
    assert paths
    for path in paths:
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(images.decode(path.read_bytes(), str(path)), expected)
        assert images.file_size(path) == expected.shape[:2]


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp"])
def test_size_is_height_width(extension):
    data = encoded(extension)
    assert images.image_size(data, "x") == (37, 53)
    assert images.decode(data, "x").shape == (37, 53, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM"])
def test_red_is_the_first_channel(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (250, 10, 20)).save(buffer, kind)
    np.testing.assert_allclose(images.decode(buffer.getvalue(), "x")[8, 8], [250, 10, 20], atol=4)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "I;16"])
def test_every_colour_mode_becomes_rgb(mode):
    buffer = io.BytesIO()
    kind = "JPEG" if mode == "CMYK" else "PNG"
    Image.new(mode, (6, 5)).save(buffer, kind)
    image = images.decode(buffer.getvalue(), "x")
    assert image.shape == (5, 6, 3) and image.dtype == np.uint8


def test_exif_orientation_is_ignored():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees when shown
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    assert images.decode(buffer.getvalue(), "x").shape == (20, 40, 3)
    assert images.image_size(buffer.getvalue(), "x") == (20, 40)


def test_progressive_jpeg_with_a_long_header():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(
        buffer, "JPEG", progressive=True, icc_profile=bytes(200_000), comment=b"\xff\xc0" * 50
    )
    assert image_headers.header_size(buffer.getvalue()) == (20, 40)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff", encoded(".png")[:40]])
def test_what_is_no_image_is_named(data):
    with pytest.raises(DataError, match=r"cat\.jpg.*(cannot be decoded|is an empty file)"):
        images.decode(data, "cat.jpg")


def test_a_photograph_of_a_phone_is_read_as_it_is_shown(tmp_path):
    data = PHONE.read_bytes()  # stored as 16 x 32, shown as 32 x 16
    assert images.exif_orientation(data) == 1  # the decoder has turned the pixels
    assert images.image_size(data, "x") == images.file_size(PHONE) == (32, 16)
    pixels = images.decode(data, "x")
    assert pixels.shape == (32, 16, 3) and not images.is_animated(data)
    corners = pixels[[4, 4, -5, -5], [4, -5, 4, -5]].tolist()
    # The left column of the stored image, from bottom to top, is the first row.
    colors = [(40, 60, 210), (220, 40, 30), (240, 240, 240), (30, 200, 60)]
    np.testing.assert_allclose(corners, colors, atol=4)
    renamed = tmp_path / "without_suffix"
    renamed.write_bytes(data)
    assert image_input.is_image(renamed)
    np.testing.assert_array_equal(image_input.read_image(str(renamed)), pixels)
    with pytest.raises(DataError, match=r"cat\.heic.*cannot be decoded"):
        images.decode(data[:700], "cat.heic")


def test_heic_names_the_package_that_reads_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    images._enable_heic.cache_clear()
    what = r"cat\.heic: is a HEIC image, which needs pillow-heif; "
    fix = r"pip install 'retinanet_jax\[heic\]', or convert it to JPEG"
    with pytest.raises(DataError, match=what + fix):
        images.decode(PHONE.read_bytes(), "cat.heic")


def test_a_pointer_of_git_lfs_is_named():
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    with pytest.raises(DataError, match=r"cat\.jpg: is a Git LFS pointer.*; run git lfs pull"):
        images.decode(pointer, "cat.jpg")


def test_avif_is_not_taken_for_heic():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), (250, 10, 20)).save(buffer, "AVIF")
    data = buffer.getvalue()
    assert not image_headers.is_heic(data)
    general = data[:8] + b"mif1" + data[12:]  # the brand says HEIF, and a later one AVIF
    assert not image_headers.is_heic(general) and images.decode(general, "x").shape == (20, 40, 3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_photograph_is_refused(share):
    data = encoded(".jpg", (200, 300))
    with pytest.raises(DataError, match="truncated"):
        images.decode(data[: int(len(data) * share)], "x")


def test_a_chunk_of_a_png_longer_than_the_file_is_not_allocated():
    data = bytearray(encoded(".png"))
    data[33:37] = struct.pack(">I", 1 << 30)  # the length of the chunk after IHDR
    with pytest.raises(DataError, match="the end of the PNG is missing"):
        images.decode(bytes(data), "x")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "YCbCr"])
def test_pillow_images_higher_than_a_strip_are_whole(mode):
    rows = np.random.default_rng(0).integers(0, 256, (2 * 1024 + 7, 3, 3), np.uint8)
    image = Image.fromarray(rows).convert(mode)
    np.testing.assert_array_equal(images.from_pillow(image), np.asarray(image.convert("RGB")))


def test_missing_files_are_named(tmp_path):
    for path in (tmp_path / "no.jpg", tmp_path, tmp_path / ("x" * 300)):
        for read in (images.file_size, images.read_file):
            with pytest.raises(DataError, match=str(path)) as caught:
                read(path)
            assert caught.value.reason == "missing image"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b""]))
def test_any_bytes_have_a_size_or_none(tail, magic):
    size = image_headers.header_size(magic + tail)
    assert size is None or len(size) == 2


def test_hidden_files_and_folders_of_systems_are_not_among_the_files_below(tmp_path):
    for name in ("a.png", "b/c.png", ".d/e.png", "@eaDir/a.png/THUMB.png", "b/$RECYCLE.BIN/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert image_input.files_below(tmp_path) == [tmp_path / "a.png", tmp_path / "b/c.png"]
