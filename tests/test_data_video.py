"""Recordings of browsers and screens: the declared rate is not that of the frames."""

from fractions import Fraction

import numpy as np
import pytest

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.video import Video

av = pytest.importorskip("av")


@pytest.fixture
def recording(tmp_path):
    """A file that declares 1000 frames per second and has 12 frames, one each 40 ms."""
    path, milliseconds = tmp_path / "screen.webm", Fraction(1, 1000)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = milliseconds
        for number in range(12):
            image = np.full((48, 64, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = 40 * number, milliseconds
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def test_an_implausible_rate_is_replaced_by_that_of_the_timestamps(recording):
    video = Video(recording)
    assert video.rate == pytest.approx(25)
    # The file has no count: FFmpeg's is the duration times the declared rate.
    assert len(list(video)) == 12 and 11 <= video.length <= 12


def test_a_recording_that_was_not_copied_whole_is_an_error(recording):
    content = recording.read_bytes()
    recording.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError, match="ends after"):
        list(Video(recording))
