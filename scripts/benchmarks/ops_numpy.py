"""Contestant of nms.py: greedy NMS in NumPy, one iteration per kept box."""

import sys

import numpy as np

from benchmarks import inputs
from benchmarks.contestants import serve, time_calls


def nms(boxes: np.ndarray, scores: np.ndarray, max_outputs: int) -> np.ndarray:
    """Indices of the first boxes that greedy NMS at 0.5 keeps, by descending score."""
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes[order].T.copy()
    areas = (x2 - x1) * (y2 - y1)
    left, kept = np.arange(len(boxes)), []
    while left.size and len(kept) < max_outputs:
        first, left = left[0], left[1:]
        kept.append(first)
        width = np.minimum(x2[first], x2[left]) - np.maximum(x1[first], x1[left])
        height = np.minimum(y2[first], y2[left]) - np.maximum(y1[first], y1[left])
        intersection = np.maximum(width, 0) * np.maximum(height, 0)
        left = left[intersection <= 0.5 * (areas[first] + areas[left] - intersection)]
    return order[kept]


if __name__ == "__main__":
    num_boxes, max_outputs = map(int, sys.argv[2:])
    boxes, scores = inputs.crowded_boxes(num_boxes)
    result = {"name": "NumPy", "result": float(nms(boxes, scores, max_outputs).sum())}
    serve(lambda: time_calls(lambda: nms(boxes, scores, max_outputs), 10) | result)
