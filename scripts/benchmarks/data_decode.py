"""Contestant of data.py: only decodes JPEGs."""

import sys
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.contestants import serve

cv2.setNumThreads(0)
try:
    import simplejpeg

    NAME, decode = "simplejpeg", simplejpeg.decode_jpeg
except ImportError:
    NAME = f"OpenCV {cv2.__version__}"

    def decode(data: bytes) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


if __name__ == "__main__":
    jpegs = [path.read_bytes() for path in sorted(Path(sys.argv[1], "images").glob("*.jpg"))]

    def work() -> dict[str, float]:
        start = time.process_time()
        for jpeg in jpegs:
            decode(jpeg)
        return {"cpu_s": (time.process_time() - start) / len(jpegs), "decoder": NAME}

    serve(work)
