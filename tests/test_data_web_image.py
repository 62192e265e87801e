"""Images at HTTP addresses, of a server on this machine, beside its videos."""

import io

import numpy as np
import pytest
from camera_server import SIZE, camera
from file_server import Files, served
from PIL import ExifTags, Image

from retinanet_jax.data import web_image
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import read_image
from retinanet_jax.data.live_video import LiveVideo
from retinanet_jax.data.video import VideoWriter
from retinanet_jax.data.web_image import WebImage, open_live


def turned_photo() -> bytes:
    """A JPEG of 48 x 32 pixels that is shown upright, as phones store portraits."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif, content = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).resize((48, 32)).save(content, "jpeg", exif=exif)
    return content.getvalue()


@pytest.mark.parametrize("name", ["photo.jpg", "two words ü.JPG", "photo", "photo.mp4"])
def test_an_image_is_shown_as_its_file(tmp_path, name):
    """Whatever its name is, also without one that says what it is."""
    (tmp_path / name).write_bytes(turned_photo())
    with served(tmp_path) as address:
        found = open_live(f"{address}/{name}")
    if name == "photo.mp4":  # the server says that it is a video
        assert isinstance(found, LiveVideo)
        return
    assert isinstance(found, WebImage) and found.pixels.shape == (48, 32, 3)
    np.testing.assert_array_equal(found.pixels, read_image(tmp_path / name))
    assert found.name == f"{address}/{name}" and found.stem.startswith("http_127_0_0_1_")
    assert found.suffix == (".jpg" if "." in name else "")


def test_videos_stay_videos(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", 10) as writer:
        for level in range(5):
            writer.write(np.full((*SIZE, 3), 40 * level, np.uint8))
    (tmp_path / "clip").write_bytes((tmp_path / "clip.mp4").read_bytes())
    with served(tmp_path) as address:
        for name in ("clip.mp4", "clip"):
            assert len(list(open_live(f"{address}/{name}"))) == 5
    with camera(last=3) as address:
        assert len(list(open_live(address))) == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cut.jpg", r"/cut\.jpg: its \d+ bytes cannot be decoded .*end of the JPEG"),
        ("page.jpg", r"/page\.jpg: has no frames; check the .* sends an image or a video"),
        ("none.jpg", r"/none\.jpg: cannot be opened; check the .* sends an image or a video"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, name, says):
    (tmp_path / "cut.jpg").write_bytes(turned_photo()[:-30])
    (tmp_path / "page.jpg").write_text("<html>Not found</html>")
    with served(tmp_path) as address, pytest.raises(DataError, match=says):
        list(open_live(f"{address}/{name}"))


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (("MAX_BYTES", 300), "is larger than 0 MiB; download it, and pass the file"),
        (("MAX_SECONDS", -1), "has not arrived after -1 s; download it, and pass the file"),
    ],
)
def test_a_download_has_limits(tmp_path, monkeypatch, limit, says):
    (tmp_path / "photo.jpg").write_bytes(turned_photo())
    monkeypatch.setattr(web_image, *limit)
    with served(tmp_path) as address, pytest.raises(DataError, match=says):
        open_live(f"{address}/photo.jpg")


def test_a_password_is_sent_and_in_no_name(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(turned_photo())

    class Locked(Files):
        password = b"me:a secret"

    with served(tmp_path, Locked) as address:
        with_password = address.replace("//", "//me:a%20secret@")
        found = open_live(f"{with_password}/photo.jpg")
        assert isinstance(found, WebImage) and found.name == f"{address}/photo.jpg"
        (tmp_path / "photo.jpg").write_bytes(turned_photo()[:-30])
        with pytest.raises(DataError) as caught:
            open_live(f"{with_password}/photo.jpg")
    assert "secret" not in str(caught.value)
