"""Every kind of image file against Pillow: pixels, sizes, truncation, and the way through TFDS."""

import io
import json
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from data_settings import data_settings
from PIL import Image

from retinanet_jax.data import images
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset

HEIGHT, WIDTH = 37, 53
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encoded_16(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def image() -> Image.Image:
    """Smooth colours, other at every corner."""
    corners = np.random.default_rng(3).integers(0, 255, (5, 7, 3), np.uint8)
    return Image.fromarray(cv2.resize(corners, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR))


RGB = image()
GREY = RGB.convert("L")
PALETTE = RGB.quantize(200)
SLOPE = Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1)))
RGBA, GREY_ALPHA = RGB.copy(), GREY.copy()
RGBA.putalpha(SLOPE)
GREY_ALPHA.putalpha(SLOPE)
OTHERS = [RGB.transpose(Image.Transpose.FLIP_TOP_BOTTOM), RGB.rotate(9)]
EXIF = Image.Exif()
EXIF[ORIENTATION] = 6
MORE = {"save_all": True, "append_images": OTHERS}

STILL = {
    "jpeg": encoded(RGB, "JPEG"),
    "jpeg progressive": encoded(RGB, "JPEG", progressive=True, quality=95, subsampling=0),
    "jpeg grey": encoded(GREY, "JPEG"),
    "jpeg cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "jpeg rgb": encoded(RGB, "JPEG", keep_rgb=True),
    "jpeg exif": encoded(RGB, "JPEG", exif=EXIF),
    "jpeg garbage": encoded(RGB, "JPEG") + b"\x00garbage" * 50,
    "png": encoded(RGB, "PNG"),
    "png grey": encoded(GREY, "PNG"),
    "png grey alpha": encoded(GREY_ALPHA, "PNG"),
    "png rgba": encoded(RGBA, "PNG"),
    "png black and white": encoded(RGB.convert("1"), "PNG"),
    "png palette 1 bit": encoded(RGB.quantize(2), "PNG", bits=1),
    "png palette 2 bit": encoded(RGB.quantize(4), "PNG", bits=2),
    "png palette 4 bit": encoded(RGB.quantize(16), "PNG", bits=4),
    "png palette 8 bit": encoded(PALETTE, "PNG"),
    "png palette clear colour": encoded(PALETTE, "PNG", transparency=3),
    "png exif": encoded(RGB, "PNG", exif=EXIF),
    "png rgb 16 bit": encoded_16(np.asarray(RGB)[..., ::-1].astype(np.uint16) * 256 + 200),
    "bmp": encoded(RGB, "BMP"),
    "bmp palette": encoded(PALETTE, "BMP"),
    "webp": encoded(RGB, "WEBP"),
    "webp rgba": encoded(RGBA, "WEBP", lossless=True, exact=True),
    "webp exif": encoded(RGB, "WEBP", lossless=True, exif=EXIF),
    "gif": encoded(PALETTE, "GIF"),
    "gif clear colour": encoded(PALETTE, "GIF", transparency=5),
    "tiff": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "tiff rgba": encoded(RGBA, "TIFF"),
    "tiff cmyk": encoded(RGB.convert("CMYK"), "TIFF"),
    "ppm": encoded(RGB, "PPM"),
}
MOVING = {
    "gif animated": encoded(RGB, "GIF", **MORE),
    "apng": encoded(RGB, "PNG", **MORE),
    "apng with an image before": encoded(RGB, "PNG", default_image=True, **MORE),
    "webp animated": encoded(RGB, "WEBP", lossless=True, **MORE),
    "tiff of pages": encoded(RGB, "TIFF", **MORE),
}
KINDS = STILL | MOVING


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pillow(kind):
    data = KINDS[kind]
    image = images.decode(data, kind)
    assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
    # The two round CMYK differently.
    np.testing.assert_allclose(image.astype(int), pillow(data), atol=1 if "cmyk" in kind else 0)
    assert images.image_size(data, kind) == (HEIGHT, WIDTH)
    assert images.is_animated(data) == (kind in MOVING)


def test_the_orientation_of_a_tiff_is_heeded_in_its_size_too():
    data = encoded(RGB, "TIFF", tiffinfo={ORIENTATION: 6})
    image = images.decode(data, "x")
    assert image.shape[:2] == images.image_size(data, "x") == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(image, pillow(data))
    np.testing.assert_array_equal(image, np.rot90(np.asarray(RGB), -1))


def test_what_the_pixels_are():
    """What Pillow shares with us, said without Pillow: EXIF, alpha, the first image, 16 bits."""
    original = np.asarray(RGB)
    for kind in ("png exif", "webp exif", "png rgba", "webp rgba", "tiff rgba", "png rgb 16 bit"):
        np.testing.assert_array_equal(images.decode(KINDS[kind], kind), original)
    for kind in ("apng", "apng with an image before", "webp animated", "tiff of pages"):
        np.testing.assert_array_equal(images.decode(KINDS[kind], kind), original)
    grey = images.decode(KINDS["png grey"], "grey")
    np.testing.assert_array_equal(grey, np.repeat(np.asarray(GREY)[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 33
    image = images.decode(encoded(Image.fromarray(values), kind), kind)
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], values // 256)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused_with_the_fix(mode):
    data = encoded(Image.new(mode, (4, 4)), "TIFF")
    with pytest.raises(DataError, match=r"x\.tif.*32 bits; save it with 8 or 16"):
        images.decode(data, "x.tif")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of the damage, too
@pytest.mark.parametrize("kind", STILL)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.97])
def test_a_truncated_file_of_any_kind_is_named(kind, share):
    data = STILL[kind].removesuffix(b"\x00garbage" * 50)
    with pytest.raises(DataError, match=r"an image: .*copy it again"):
        images.decode(data[: int(len(data) * share)], "an image")


@pytest.mark.parametrize("kind", [k for k in STILL if k.startswith("jpeg") and "garb" not in k])
def test_a_jpeg_cut_and_filled_up_is_named(kind):
    """As interrupted downloads leave it; the end marker of a thumbnail does not count."""
    data = STILL[kind]
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 6) + b"\xff\xd8\xff\xd9\x00\x00"
    for cut in (data[:-2], data[: len(data) // 2]):
        for filled in (cut, cut + bytes(500), cut[:2] + thumbnail + cut[2:] + bytes(9)):
            with pytest.raises(DataError, match=r"x: .*copy it again"):
                images.decode(filled, "x")
    whole = data[:2] + thumbnail + data[2:]
    np.testing.assert_array_equal(images.decode(whole, "x"), images.decode(data, "x"))


def test_a_png_with_a_wrong_checksum_is_named():
    data = bytearray(STILL["png"])
    at = data.index(b"IDAT") + 4
    data[at + struct.unpack(">I", data[at - 8 : at - 4])[0]] ^= 1
    with pytest.raises(DataError, match="cannot be decoded"):
        images.decode(bytes(data), "x")


def with_size(width: int, height: int) -> dict[str, bytes]:
    """Small files whose headers claim a size."""
    png = bytearray(encoded(Image.new("RGB", (4, 4)), "PNG"))
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(bytes(png[12:29])))
    bmp = bytearray(encoded(Image.new("RGB", (4, 4)), "BMP"))
    bmp[18:26] = struct.pack("<ii", width, height)
    gif = bytearray(encoded(Image.new("P", (4, 4)), "GIF"))
    gif[6:10] = struct.pack("<HH", width, height)
    jpeg = bytearray(encoded(Image.new("RGB", (4, 4)), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", height, width)
    return {name: bytes(data) for name, data in zip(
        ("png", "bmp", "gif", "jpeg"), (png, bmp, gif, jpeg), strict=True
    )}  # fmt: skip


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "jpeg"])
def test_a_decompression_bomb_is_refused_by_its_header(kind, tmp_path, monkeypatch):
    path = tmp_path / "bomb"
    path.write_bytes(with_size(50_000, 50_000)[kind])
    monkeypatch.setattr(images, "_by_opencv", lambda data: pytest.fail("decoded"))
    monkeypatch.setattr(images, "_by_pillow", lambda data: pytest.fail("decoded"))
    for read in (images.file_size, lambda p: images.decode(p.read_bytes(), str(p))):
        with pytest.raises(DataError, match=r"bomb.*more than 178,956,970 pixels.*tiles"):
            read(path)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_a_header_without_width_or_height_is_named(kind, size, tmp_path):
    path = tmp_path / "flat"
    path.write_bytes(with_size(*size)[kind])
    for read in (images.file_size, lambda p: images.decode(p.read_bytes(), str(p))):
        with pytest.raises(DataError, match=r"flat"):
            read(path)


def test_what_is_no_file_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "loop", "zero", "."):
        for read in (images.file_size, images.read_file):
            with pytest.raises(DataError) as caught:
                read(tmp_path / name)
            assert caught.value.reason == "missing image"


def test_a_link_to_a_image_is_a_image(tmp_path):
    (tmp_path / "a.png").write_bytes(STILL["png"])
    (tmp_path / "b.jpg").symlink_to("a.png")
    assert images.file_size(tmp_path / "b.jpg") == (HEIGHT, WIDTH)


@pytest.mark.filterwarnings("ignore")
def test_mutated_bytes_give_the_size_of_the_header_or_a_data_error(capfd):
    """Cut, changed, spliced: whatever decodes has the size that was told before decoding."""
    rng = np.random.default_rng(0)
    decoded = 0
    sources = [KINDS[k] for k in ("jpeg", "jpeg progressive", "png", "apng", "gif", "bmp", "webp")]
    for number in range(1500):
        data = bytearray(sources[number % len(sources)])
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(data)) * rng.choice([1, 0.1]))
            kind = rng.integers(4)
            if kind == 0:
                data[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                del data[at : at + int(rng.integers(1, 20))]
            elif kind == 2:
                data[at:at] = rng.bytes(int(rng.integers(1, 20)))
            else:
                other = sources[int(rng.integers(len(sources)))]
                data[at : at + 40] = other[at : at + 40]
        data = bytes(data)
        try:
            image = images.decode(data, "mutated")
            images.is_animated(data)
        except DataError as error:
            assert "mutated" in str(error)
            continue
        decoded += 1
        assert image.shape == (*images.image_size(data, "mutated"), 3)
    assert 100 < decoded < 1400  # both sides were seen


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a file of every kind, all of them named .jpg, after its preparation."""
    root = tmp_path_factory.mktemp("kinds")
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    entries = []
    for number, (kind, data) in enumerate(KINDS.items()):
        (root / "images" / f"{kind}.jpg").write_bytes(data)
        entries.append({"id": number, "file_name": f"{kind}.jpg", "height": HEIGHT, "width": WIDTH})
    content = {"images": entries, "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (root / "annotations/instances_val.json").write_text(json.dumps(content))
    settings = data_settings("folder", root, root / "cache")
    return load_dataset(settings, "val")


def test_every_kind_goes_through_preparation_with_its_pixels(prepared):
    names = {image["id"]: image["file_name"] for image in prepared.ground_truth()["images"]}
    assert len(prepared.source) == len(names) == len(KINDS)
    for i in range(len(prepared.source)):
        example = prepared.source[i]
        data = KINDS[names[example.image_id].removesuffix(".jpg")]
        np.testing.assert_array_equal(example.image, images.decode(data, "x"))
        assert prepared.source.image_size(i) == (HEIGHT, WIDTH)


def test_animations_are_counted(prepared):
    assert "5 x animated, the first image used" in prepared.notes
    assert "tiff of pages.jpg" in prepared.notes
