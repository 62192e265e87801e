"""H.264 files: codec, rate, size and pixels, read by OpenCV and by FFmpeg's own reader."""

import cv2
import numpy as np
import pytest

from retinanet_jax.data import h264
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.video import Video, VideoWriter

av = pytest.importorskip("av")


def frames(count: int, size=(64, 96)):
    """A bright square that moves to the right on grey."""
    for number in range(count):
        frame = np.full((*size, 3), 60, np.uint8)
        frame[20:40, 3 * number : 3 * number + 20] = (240, 40, 20)
        yield frame


def write(path, rate=29.97, count=20, size=(64, 96)):
    with h264.open_video_writer(path, rate) as writer:
        for frame in frames(count, size):
            writer.write(frame)
    return writer


def test_browsers_play_the_file(tmp_path):
    """yuv420p in H.264, the index before the frames, and the frames as they were."""
    path = tmp_path / "clip.mp4"
    assert isinstance(write(path), h264.H264Writer)
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == pytest.approx(29.97, rel=1e-4)
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")
    video = Video(path)
    assert video.rate == pytest.approx(29.97, rel=1e-3) and video.length == 20
    for read, written in zip(video, frames(20), strict=True):
        assert np.abs(read.astype(int) - written).mean() < 3


def test_odd_sides_lose_a_row_or_column(tmp_path):
    write(tmp_path / "clip.mp4", size=(65, 97), count=2)
    capture = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    assert capture.read()[1].shape == (64, 96, 3)


def test_other_files_and_environments_get_opencv_s_codecs(tmp_path, monkeypatch):
    assert isinstance(write(tmp_path / "clip.avi", count=2), VideoWriter)
    monkeypatch.setattr(h264, "has_h264", lambda: False)
    assert isinstance(write(tmp_path / "clip.mp4", count=2), VideoWriter)
    with h264.H264Writer(tmp_path / "none.mp4", 25):
        pass
    assert not (tmp_path / "none.mp4").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataError, match=r"clip\.mp4: cannot be written .* disk with space"):
        write(tmp_path / "missing/clip.mp4")


def test_a_full_disk_leaves_no_file(small_disk):
    (small_disk / "rest").write_bytes(bytes(2_900_000))
    rng = np.random.default_rng(0)
    path = small_disk / "clip.mp4"
    with pytest.raises(DataError, match="cannot be written"), h264.H264Writer(path, 25) as writer:
        for _ in range(60):
            writer.write(rng.integers(0, 256, (240, 320, 3), np.uint8))
    assert not path.exists()
