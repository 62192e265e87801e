"""Writes the detections of an image for annotation tools: YOLO labels and Pascal VOC XML.

Neither format has a field for scores. Boxes without area, which no annotation tool accepts, are
left out.
"""

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, Int

from retinanet_jax.data.annotations.check_boxes import MIN_SIDE

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def yolo_labels(
    boxes: Float[np.ndarray, "d 4"], labels: Int[np.ndarray, " d"], size: tuple[int, int]
) -> str:
    """Returns a line `label x y width height` per box: centre and size as fractions of the image.

    Args:
      boxes: xyxy in pixels of the image.
      labels: class indices, contiguous from 0.
      size: (height, width) of the image in pixels.
    """
    lines = []
    for row in _with_area(boxes):
        x1, y1, x2, y2 = boxes[row].tolist()
        pixels = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        shares = [value / side for value, side in zip(pixels, size[::-1] * 2, strict=True)]
        lines.append(" ".join([str(labels[row]), *(f"{share:.9g}" for share in shares)]))
    return "".join(f"{line}\n" for line in lines)


def voc_xml(
    boxes: Float[np.ndarray, "d 4"], names: Sequence[str], size: tuple[int, int], file_name: str
) -> str:
    """Returns the XML file of an image.

    Args:
      boxes: xyxy in pixels that count from 0, as in the files of CVAT and labelImg.
      names: class name of each box.
      size: (height, width) of the image in pixels.
      file_name: file name of the image.
    """
    root = ElementTree.Element("annotation")
    _add(root, "filename", file_name)
    sides = _add(root, "size")
    for side, value in zip(("width", "height", "depth"), (*size[::-1], 3), strict=True):
        _add(sides, side, str(value))
    for row in _with_area(boxes):
        entry = _add(root, "object")
        for tag, text in (("name", names[row]), ("truncated", "0"), ("difficult", "0")):
            _add(entry, tag, text)
        box = _add(entry, "bndbox")
        for corner, value in zip(_CORNERS, boxes[row], strict=True):
            _add(box, corner, str(value))  # the shortest text that reads back as this float32
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _with_area(boxes: Float[np.ndarray, "d 4"]) -> list[int]:
    return np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1)).tolist()


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = text
    return child
