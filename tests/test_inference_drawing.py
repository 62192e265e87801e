"""Drawn boxes: sizes, colours, labels in any script, grids."""

from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from PIL import Image, ImageDraw

from retinanet_jax.core.postprocess import Detections
from retinanet_jax.inference import drawing, label_fonts
from retinanet_jax.inference.drawing import (
    PALETTE,
    Objects,
    class_color,
    detection_grid,
    draw_boxes,
)

NAMES = ("cat", "dog")


def grey(height=500, width=600):
    return np.full((height, width, 3), 128, np.uint8)


def objects(*rows):
    """Rows of x1, y1, x2, y2, label."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Objects(table[:, :4], table[:, 4].astype(np.int32))


def has_color(image, color, tolerance=3):
    return (np.abs(image.astype(int) - color).max(axis=-1) <= tolerance).any()


def test_colors_are_fixed_and_distinct():
    colors = [class_color(label) for label in range(90)]
    assert colors == [class_color(label) for label in range(90)]
    assert len(set(colors)) == 90 and tuple(colors[: len(PALETTE)]) == PALETTE
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_outline_lies_on_the_box():
    """The frame's own pixels have the class colour; the middle of the box is untouched."""
    image = draw_boxes(grey(), *objects((100, 200, 300, 400, 1))[:2], NAMES)
    assert image.shape == (500, 600, 3) and image.dtype == np.uint8
    for y, x in ((300, 100), (300, 300), (400, 200), (200, 290)):
        np.testing.assert_array_equal(image[y, x], class_color(1))
    assert (image[300, 200] == 128).all() and (image[450, 500] == 128).all()


def test_same_input_same_image_and_input_kept():
    image, row = grey(), objects((100, 200, 300, 400, 0), (120, 180, 200, 300, 1))
    first, second = (draw_boxes(image, row.boxes, row.labels, NAMES) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (image == 128).all()


def test_small_images_are_enlarged():
    """24 x 32 becomes 360 x 480; the box grows with it."""
    image = draw_boxes(grey(24, 32), *objects((8, 8, 24, 20, 0))[:2], NAMES)
    assert image.shape == (360, 480, 3)
    np.testing.assert_array_equal(image[200, 8 * 15], class_color(0))
    image = draw_boxes(grey(24, 32), *objects((8, 8, 24, 20, 0))[:2], NAMES, long_side=64)
    assert image.shape == (48, 64, 3)


def test_scores_and_crowds_are_written():
    row = objects((100, 200, 300, 400, 0))
    plain = draw_boxes(grey(), row.boxes, row.labels, NAMES)
    score = np.array([0.5], np.float32)
    scored = draw_boxes(grey(), row.boxes, row.labels, NAMES, score)
    crowd = draw_boxes(grey(), row.boxes, row.labels, NAMES, crowd=np.ones(1, bool))
    assert (plain != scored).any() and (plain != crowd).any() and (scored != crowd).any()


def test_padding_is_not_drawn():
    row = objects((100, 200, 300, 400, -1))
    assert (draw_boxes(grey(), row.boxes, row.labels, NAMES) == 128).all()
    empty = objects()
    assert (draw_boxes(grey(), empty.boxes, empty.labels, NAMES) == 128).all()


@pytest.mark.parametrize(
    "box",
    [
        (-50, -50, 1000, 1000),
        (700, 700, 800, 800),
        (-30, -30, -10, -10),
        (100, 100, 100, 100),
        (300, 300, 200, 200),
        (0.2, 0.2, 0.9, 0.9),
    ],
)
def test_odd_boxes_are_drawn_inside_the_image(box):
    row = objects((*box, 0))
    image = draw_boxes(grey(), row.boxes, row.labels, NAMES, np.array([1.0], np.float32))
    assert has_color(image, class_color(0))


def test_labels_avoid_each_other():
    """Two boxes in one place: both plates show, one above the other."""
    row = objects((200, 200, 400, 400, 0), (200, 200, 400, 400, 1))
    image = draw_boxes(grey(), row.boxes, row.labels, NAMES, np.array([0.9, 0.8], np.float32))
    above, inside = (
        image[rows, 203:240].mean((0, 1)) for rows in (slice(188, 198), slice(203, 213))
    )
    assert np.argmax(above) == 2, "the better one, blue, above"
    assert np.argmax(inside) == 0, "the other, red, inside"


def test_label_without_name():
    row = objects((0, 0, 9, 9, 2))
    with pytest.raises(ValueError, match="labels: 2 has no name; there are 2 names"):
        draw_boxes(grey(), row.boxes, row.labels, NAMES)


class Example(NamedTuple):
    """The fields that the data pipeline's examples have."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    image_id: int


def grid_rows(count, shape=(240, 320)):
    truth = objects((20, 20, 200, 200, 0), (50, 60, 100, 120, 1))
    found = Detections(
        truth.boxes, np.array([0.9, 0.3], np.float32), truth.labels, np.array([True, False])
    )
    example = Example(grey(*shape), truth.boxes, truth.labels, np.array([False, True]), 7)
    return [(example.image, example, found)] * count


def test_grid_takes_examples_and_detections():
    """One invalid detection is left out: its colour is on the left alone."""
    grid = detection_grid(grid_rows(1), NAMES, long_side=640)
    middle = grid.shape[1] // 2
    assert has_color(grid[:, :middle], class_color(1)) and has_color(grid, class_color(0))
    assert not has_color(grid[:, middle:], class_color(1))
    assert (grid[0] == 255).all(), "a white margin"


def test_grid_size_follows_the_number_of_images():
    shapes = {n: detection_grid(grid_rows(n), NAMES, long_side=160).shape for n in (1, 3, 4, 5)}
    assert shapes[1][1] == shapes[3][1] < shapes[4][1] == shapes[5][1]
    assert shapes[4][0] < shapes[3][0] == shapes[5][0]


def test_grid_of_different_shapes_and_plain_tuples():
    row = objects((20, 20, 100, 100, 0))
    rows = [
        (grey(300, 100), tuple(row[:2]), tuple(row[:2])),
        (grey(100, 300), row, objects()),
    ]
    grid = detection_grid(rows, NAMES, long_side=200)
    assert grid.dtype == np.uint8 and grid.ndim == 3


def test_grid_without_rows():
    with pytest.raises(ValueError, match="no rows"):
        detection_grid([], NAMES)


def drawn_label(name: str) -> np.ndarray:
    row = objects((20, 100, 500, 400, 0))
    return draw_boxes(grey(), row.boxes, row.labels, [name])


@pytest.mark.parametrize("name", ["Müll", "кошка", "Ωμέγα", "ñandú", "łódź"])
def test_each_letter_is_drawn(name):
    """Of names beyond ASCII, no letter is lost or drawn as the box of a missing glyph."""
    assert label_fonts.missing_letters([name]) == ""
    ((piece, font),) = label_fonts.text_runs(name, 24)
    assert piece == name
    lacking = bytes(font.getmask("\U0010ffff"))
    masks = [bytes(font.getmask(letter)) for letter in name]
    assert all(any(mask) and mask != lacking for mask in masks)
    assert len(set(masks)) == len(set(name))
    for i in range(len(name)):
        assert (drawn_label(name) != drawn_label(name[:i] + name[i + 1 :])).any()


def test_letters_of_another_font_are_drawn_with_it():
    if label_fonts.missing_letters(["猫"]):
        pytest.skip("no font on this machine has Chinese letters")
    runs = label_fonts.text_runs("my 猫 cat", 24)
    assert [piece for piece, _ in runs] == ["my ", "猫 ", "cat"]
    assert runs[0][1] is runs[2][1] is not runs[1][1]
    assert label_fonts.drawable_name("猫", 3) == "猫"


def test_without_a_font_the_class_has_a_number(monkeypatch):
    monkeypatch.setattr(label_fonts, "_system_fonts", list)
    for function in (label_fonts._font_for, label_fonts.drawable_name, label_fonts.text_runs):
        function.cache_clear()
    try:
        with mock.patch.object(label_fonts.logging, "warning") as warning:
            assert [label_fonts.drawable_name("猫", 3) for _ in range(3)] == ["class 3"] * 3
        assert warning.call_count == 1 and "猫" in warning.call_args.args[1]
        np.testing.assert_array_equal(drawn_label("猫"), drawn_label("class 0"))
    finally:
        for function in (label_fonts._font_for, label_fonts.drawable_name, label_fonts.text_runs):
            function.cache_clear()


def test_plates_do_not_cover_each_other_where_there_is_room():
    """Twelve objects in one place of a large image: all plates are apart."""
    taken = []
    image = Image.new("RGBA", (1200, 900))
    for _ in range(12):
        box, color = [300, 300, 700, 600], PALETTE[0]
        drawing._label(ImageDraw.Draw(image), "class 0.50", 20, box, color, taken)
    for i, (left, top, right, bottom) in enumerate(taken):
        for x1, y1, x2, y2 in taken[:i]:
            assert right <= x1 or x2 <= left or bottom <= y1 or y2 <= top
