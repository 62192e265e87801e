"""Prints the error of each way to misuse a Detector, a line for each."""

import io
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

import numpy as np  # noqa: E402  (the package that is tested comes first)
from small_detector import WIDE, small_detector  # noqa: E402

from retinanet_jax.inference.detector import Detector  # noqa: E402

detector = small_detector()
image = np.zeros((*WIDE, 3), np.uint8)


def stream_of_one():
    ((given, _),) = detector.stream(image)
    assert given is image
    print("one image is a stream of one")


for misuse in (
    lambda: detector(None),
    lambda: detector(5),
    lambda: detector(b"some bytes"),
    lambda: detector(io.BytesIO(b"some bytes")),
    lambda: detector([None]),
    stream_of_one,
    lambda: detector(image, threshold="0.5"),
    lambda: detector(image, max_detections=1.5),
    lambda: detector(image, classes=3),
    lambda: detector(image, classes=[0]),
    lambda: detector(image, scales=1.5),
    lambda: Detector(None, detector.config, detector.categories),
    lambda: Detector(detector.variables, None, detector.categories),
    lambda: Detector(detector.variables, detector.config, detector.categories, batch_size=1.5),
    lambda: Detector.from_checkpoint(None),
):
    try:
        misuse()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
