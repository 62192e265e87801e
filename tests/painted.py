"""Images of painted rectangles: where a colour is found is where its box has to be."""

import hypothesis.strategies as st
import numpy as np

from retinanet_jax.data.pipeline.batch import Example, box_areas

# Label i has colour i. Halfway to black, or to the grey of a mosaic, each ends.
COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 250]], np.uint8)


def painted(size, boxes, labels=None, crowd=None) -> Example:
    """A black image of `size` (height, width) with filled boxes, which cover half their area."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.arange(len(boxes)) if labels is None else np.asarray(labels)
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd)
    image = np.zeros((*size, 3), np.uint8)
    for (x1, y1, x2, y2), label in zip(boxes.astype(int), labels, strict=True):
        image[y1:y2, x1:x2] = COLOURS[label]
    areas = box_areas(boxes) / 2
    return Example(image, boxes, labels.astype(np.int32), crowd, areas, image_id=5)


@st.composite
def painted_examples(draw) -> Example:
    """Three rectangles apart from each other, the second of them a crowd."""
    height, width = draw(st.integers(60, 140)), draw(st.integers(60, 140))
    boxes = []
    for number in range(3):
        # Each in a third of the width of its own.
        low, high = number * width // 3 + 2, (number + 1) * width // 3 - 2
        x1 = draw(st.integers(low, high - 8))
        x2 = draw(st.integers(x1 + 6, high))
        y1 = draw(st.integers(0, height - 8))
        y2 = draw(st.integers(y1 + 6, height))
        boxes.append([x1, y1, x2, y2])
    return painted((height, width), boxes, crowd=[False, True, False])


def where_painted(image: np.ndarray, label: int) -> np.ndarray:
    """bool [h w]: the pixels that have more than half of the label's colour."""
    distance = np.abs(image.astype(int) - COLOURS[label]).max(-1)
    return distance < 125


def assert_boxes_fit(image, boxes, labels, tolerance: float = 1.0) -> None:
    """Every box encloses the pixels of its label's colour; padding (-1) is left out."""
    for box, label in zip(np.asarray(boxes), np.asarray(labels), strict=True):
        if label < 0:
            continue
        rows, columns = np.nonzero(where_painted(np.asarray(image), label))
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, found, atol=tolerance, err_msg=f"label {label}")


def assert_example_fits(example: Example, tolerance: float = 1.0) -> None:
    """Boxes fit the colours, and areas are still half of the boxes'."""
    assert_boxes_fit(example.image, example.boxes, example.labels, tolerance)
    np.testing.assert_allclose(example.areas, box_areas(example.boxes) / 2, rtol=1e-4)
