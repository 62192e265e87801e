"""Frames of a network camera, here a server on this machine, and of cameras that are not there."""

import re
import threading

import cv2
import numpy as np
import pytest
from camera_server import SIZE, camera, color

from retinanet_jax.data import live_video
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.live_video import LiveVideo, is_live


def test_frames_come_in_order_until_the_stream_ends():
    with camera(last=12) as address:
        centers = [frame[SIZE[0] // 2, SIZE[1] // 2] for frame in LiveVideo(address)]
    np.testing.assert_allclose(centers, [color(number) for number in range(12)], atol=3)


def test_a_url_of_an_image_is_one_frame():
    with camera() as address:
        (frame,) = LiveVideo(address.replace("video.mjpg", "photo.jpg"))
    assert frame.shape == (*SIZE, 3)
    np.testing.assert_allclose(frame[9, 9], color(0), atol=3)


def test_an_endless_stream_is_closed_by_its_reader():
    reading = threading.Lock()
    with camera(reading=reading) as address:
        video = LiveVideo(address)
        frames = iter(video)
        assert [next(frames).shape for _ in range(30)] == [(*SIZE, 3)] * 30
        assert video.length == 0 and 0 < video.rate <= 240 and reading.locked()
        frames.close()
        assert reading.acquire(timeout=60)  # the camera notices that its reader has hung up


def test_a_stream_without_frames_is_an_error(monkeypatch):
    monkeypatch.setattr(live_video, "rgb_frames", lambda capture: iter(()))
    with camera(last=12) as address, pytest.raises(DataError, match="has no frames; check the"):
        list(LiveVideo(address))


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("/nothing", r"nothing: cannot be opened; check the address"),
        (":no", r"no: cannot be opened; check the address"),
    ],
)
def test_a_url_without_a_video_is_named(place, says):
    with camera() as address, pytest.raises(DataError, match=says):
        LiveVideo(address.replace("/video.mjpg", place))


def test_a_webcam_that_is_not_there_is_named(capfd):
    with pytest.raises(DataError, match="webcam 77: cannot be opened; connect the camera"):
        LiveVideo("77")
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_a_password_is_in_no_message():
    with pytest.raises(DataError) as caught:
        LiveVideo("http://me:secret@127.0.0.1:9/video")
    assert "secret" not in str(caught.value) and "http://127.0.0.1:9/video" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "live"),
    [
        *((0, True), ("0", True), ("rtsp://host/live", True), ("https://host/a.mp4", True)),
        *(("photo.jpg", False), ("0.jpg", False), ("C:/photos", False), ("hf://me/cells", False)),
    ],
)
def test_what_is_live(source, live):
    assert is_live(source) is live


def test_names_of_files():
    with camera() as address:
        assert re.fullmatch(r"http_127_0_0_1_\d+_video_mjpg", LiveVideo(address).stem)
    assert cv2.utils.logging.getLogLevel() != cv2.utils.logging.LOG_LEVEL_SILENT
