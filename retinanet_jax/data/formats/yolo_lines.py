"""Recognizes the numbers of a YOLO label line: a box, a box with more values, or a polygon."""

from collections.abc import Sequence

BOX = ""
POLYGON = "polygons or oriented boxes, bounding boxes used; keypoints need kpt_shape in data.yaml"
EXTRA_FIELD = "confidence or track, ignored"
KEYPOINTS = "keypoints, ignored"
_FLAGS = (0, 1, 2)  # a keypoint is not labelled, hidden or visible
_TOLERANCE = 0.01  # of the image's size


def form_of(values: Sequence[float], keypoints: bool, tracks: bool) -> str | None:
    """Returns BOX, POLYGON or what follows a box; None if no form has this number of values.

    Args:
      values: values of a line, without its class.
      keypoints: whether the YAML file states that lines have keypoints.
      tracks: see `has_tracks`.
    """
    count = len(values)
    if count == 4:
        return BOX
    if count > 4 and (keypoints or _has_flagged_keypoints(values)):
        return KEYPOINTS
    if count == 5 or (count == 6 and tracks):
        return EXTRA_FIELD
    return POLYGON if count >= 6 and count % 2 == 0 else None


def _has_flagged_keypoints(values: Sequence[float]) -> bool:
    """Whether keypoints of x, y and visibility are behind a box.

    Few numbers, or an even number of them, may also be a polygon, with or without a confidence. The
    keypoints of an annotated object are in its box, and the box is in the image.
    """
    count, flags = len(values), values[6::3]
    if count < 7 or (count - 4) % 3 or any(flag not in _FLAGS for flag in flags):
        return False
    if count % 2 and count > 7:
        return True
    x, y, width, height = values[:4]
    points = zip(values[4::3], values[5::3], flags, strict=True)
    return _is_inside(values[:4]) and all(
        abs(px - x) <= width / 2 + _TOLERANCE and abs(py - y) <= height / 2 + _TOLERANCE
        for px, py, flag in points
        if flag
    )


def has_tracks(lines: Sequence[Sequence[str]]) -> bool:
    """Returns whether each line of a file is a box, a confidence and a track number.

    Otherwise lines of these seven fields are triangles.
    """
    numbers = [line[6] for line in lines if len(line) == 7]
    if not numbers or len(numbers) < len(lines) or len(set(numbers)) < len(numbers):
        return False
    return all(number.isdecimal() for number in numbers) and all(map(_is_tracked_box, lines))


def _is_tracked_box(line: Sequence[str]) -> bool:
    try:
        *box, confidence = map(float, line[1:6])
    except ValueError:
        return False
    return _is_inside(box) and 0 <= confidence <= 1


def _is_inside(box: Sequence[float]) -> bool:
    x, y, width, height = box
    return all(
        side >= 0 and side / 2 <= min(center, 1 - center) + _TOLERANCE
        for center, side in ((x, width), (y, height))
    )
