"""The drawn dataset: reproducible, exact boxes, nothing hidden, ground truth in COCO form."""

import numpy as np
import pytest

from retinanet_jax.data import shapes, shapes_drawing
from retinanet_jax.data.shapes import Difficulty, ShapesSource


@pytest.fixture(scope="module")
def source() -> ShapesSource:
    return ShapesSource(num_images=300, image_size=(96, 128), seed=3)


@pytest.fixture(scope="module")
def drawn(source):
    return [source._draw(i) for i in range(len(source))]


def test_an_example_depends_on_seed_and_index_alone(source):
    later, first = source[17], ShapesSource(num_images=20, image_size=(96, 128), seed=3)[17]
    np.testing.assert_array_equal(later.image, first.image)
    np.testing.assert_array_equal(later.boxes, first.boxes)
    assert (
        ShapesSource(num_images=20, image_size=(96, 128), seed=4)[17].image != later.image
    ).any()
    assert (source[18].image != later.image).any()


def test_annotations_without_the_image_are_those_of_the_example(source):
    for index in range(20):
        annotated, example = source.annotated(index), source[index]
        np.testing.assert_array_equal(annotated.boxes, example.boxes)
        np.testing.assert_array_equal(annotated.labels, example.labels)
        np.testing.assert_array_equal(annotated.areas, example.areas)


def test_types_and_sizes(source):
    example = source[0]
    assert example.image.shape == (96, 128, 3) and example.image.dtype == np.uint8
    assert example.image.flags.c_contiguous and source.image_size(0) == (96, 128)
    assert example.boxes.dtype == np.float32 and example.labels.dtype == np.int32
    assert example.crowd.dtype == bool and example.image_id == source.image_id(0) == 0
    assert source.categories.names == shapes.CLASSES


def test_an_upright_rectangle_is_filled_exactly():
    outline = np.array([[3, 5], [10, 5], [10, 9], [3, 9]], float)
    shape = shapes_drawing.rasterize([outline], (20, 20), label=2)
    np.testing.assert_allclose(shape.box, (3, 5, 10, 9), atol=1 / shapes_drawing.SUPERSAMPLING)
    np.testing.assert_allclose(shape.area, 7 * 4, rtol=0.05)
    assert (shape.top, shape.left) == (5, 3) and shape.coverage.min() > 0.9


def test_a_hole_is_left_open_and_the_area_is_the_discs_difference():
    ring = [30 * outline + 40 for outline in shapes_drawing.outlines_of("ring", 0.0)]
    shape = shapes_drawing.rasterize(ring, (80, 80), label=1)
    np.testing.assert_allclose(shape.area, np.pi * 30**2 * (1 - 0.55**2), rtol=0.03)
    assert shape.coverage[30, 30] == 0 and shape.coverage[30, 3] == 1


def test_boxes_enclose_what_is_drawn_and_nothing_more(drawn):
    for _, placed in drawn:
        for shape in placed:
            rows, columns = np.nonzero(shape.coverage)
            x1, y1, x2, y2 = shape.box
            assert shape.left + columns.min() == np.floor(x1)
            assert shape.top + rows.min() == np.floor(y1)
            assert shape.left + columns.max() + 1 == np.ceil(x2)
            assert shape.top + rows.max() + 1 == np.ceil(y2)
            assert 0 <= x1 < x2 <= 128 and 0 <= y1 < y2 <= 96


def test_no_shape_is_mostly_hidden(drawn):
    for _, placed in drawn:
        owner = np.full((96, 128), -1)
        for number, s in enumerate(placed):
            height, width = s.coverage.shape
            region = owner[s.top : s.top + height, s.left : s.left + width]
            region[s.coverage >= 0.5] = number
        for number, shape in enumerate(placed):
            visible = (owner == number).sum() / (shape.coverage >= 0.5).sum()
            assert visible > shapes.MIN_VISIBLE - 0.1  # slack: rounding of a shape of 10 pixels


def test_every_shape_stands_out_from_the_ground(drawn):
    """In images of one shape: its mean colour against that of all the rest."""
    contrast = []
    for image, placed in drawn:
        if len(placed) == 1:
            (s,) = placed
            height, width = s.coverage.shape
            inside = image[s.top : s.top + height, s.left : s.left + width][s.coverage == 1]
            outside = image[_whole_mask(s, image.shape[:2]) == 0]
            contrast.append(np.linalg.norm(inside.mean(0) - outside.mean(0)))
    assert len(contrast) > 20 and min(contrast) > 60


def _whole_mask(shape, size):
    mask = np.zeros(size)
    height, width = shape.coverage.shape
    mask[shape.top : shape.top + height, shape.left : shape.left + width] = shape.coverage
    return mask


def test_sizes_classes_and_empty_images_have_the_stated_shares(drawn):
    placed = [shape for _, all_shapes in drawn for shape in all_shapes]
    sides = np.array([max(s.box[2] - s.box[0], s.box[3] - s.box[1]) for s in placed])
    low, high = 96 * np.array(shapes.SIZE_RANGE)
    assert low - 0.5 < sides.min() < 1.3 * low and 0.8 * high < sides.max() < high + 0.5
    octave_shares = np.histogram(np.log2(sides / low), bins=[-1, 1, 2, 4])[0] / len(sides)
    assert octave_shares.min() > 0.2
    assert np.bincount([s.label for s in placed]).min() > 0.12 * len(placed)
    empty = np.mean([not all_shapes for _, all_shapes in drawn])
    assert 0.02 < empty < 0.09


def test_ground_truth_says_what_the_examples_say():
    source = ShapesSource(num_images=30, image_size=(64, 64), seed=1)
    truth = source.ground_truth()
    assert [image["id"] for image in truth["images"]] == list(range(30))
    assert [c["name"] for c in truth["categories"]] == list(shapes.CLASSES)
    ids = [annotation["id"] for annotation in truth["annotations"]]
    assert ids == list(range(1, len(ids) + 1))  # 0 would count as "no match" in pycocotools
    for index in range(30):
        example = source[index]
        annotations = [a for a in truth["annotations"] if a["image_id"] == index]
        xywh = np.array([a["bbox"] for a in annotations]).reshape(-1, 4)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        np.testing.assert_allclose(xyxy, example.boxes, atol=1e-4)
        labels = [source.categories.label_of(a["category_id"]) for a in annotations]
        np.testing.assert_array_equal(labels, example.labels)
        np.testing.assert_array_equal([a["area"] for a in annotations], example.areas)
        assert all(0 < a["area"] <= a["bbox"][2] * a["bbox"][3] + 1e-6 for a in annotations)


# Of six images of seed 3: mean pixel, labels, sum of the coordinates of the boxes.
EASY_IMAGES = [
    (90.7929, [0, 3, 1, 2, 0], 1039.5),
    (100.8518, [1, 2, 4, 1, 0, 3, 4], 1534.5),
    (76.688, [3, 1], 430.75),
    (73.6383, [4, 4, 3, 2], 814.25),
    (177.1272, [4, 2, 3], 777.25),
    (108.2587, [2, 4, 3, 2], 823.75),
]


def test_the_easy_dataset_is_unchanged(source):
    for index, (pixel, labels, corners) in enumerate(EASY_IMAGES):
        example = source[index]
        assert example.labels.tolist() == labels
        assert example.boxes.sum() == pytest.approx(corners)
        # Of a whole image: another rounding of a few pixels is another processor's.
        assert example.image.mean() == pytest.approx(pixel, abs=1e-3)


def source_of(**difficulty):
    return ShapesSource(
        num_images=200, image_size=(96, 96), seed=5, difficulty=Difficulty(**difficulty)
    )


def test_few_small_shapes():
    source = source_of(max_objects=3, size_range=(0.1, 0.3))
    found = [source.annotated(i).boxes for i in range(200)]
    assert {len(boxes) for boxes in found} == {0, 1, 2, 3}
    boxes = np.concatenate(found)
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    assert 9 < sides.min() < 12 and 26 < sides.max() < 30


def test_many_shapes_find_room():
    counts = [
        len(source_of(max_objects=40, size_range=(0.1, 0.15)).annotated(i).boxes) for i in range(9)
    ]
    assert max(counts) > 25


def test_imbalance_makes_the_last_classes_rare():
    labels = np.concatenate([source_of(imbalance=16).annotated(i).labels for i in range(200)])
    shares = np.bincount(labels, minlength=5) / len(labels)
    # 16, 8, 4, 2 and 1 of 31, but large round ones find room more seldom.
    np.testing.assert_allclose(shares, np.array([16, 8, 4, 2, 1]) / 31, atol=0.1)
    assert (np.diff(shares) < 0).all() and shares[0] > 6 * shares[-1]


def test_distractors_are_painted_and_leave_the_objects_alone():
    plain, crowded = source_of(), source_of(distractors=6)
    changed = []
    for index in range(20):
        before, after = plain[index], crowded[index]
        np.testing.assert_array_equal(after.boxes, before.boxes)
        np.testing.assert_array_equal(after.labels, before.labels)
        changed.append((before.image != after.image).any(axis=-1).mean())
    assert 0.02 < np.mean(changed) < 0.6
    again = source_of(distractors=6)[3].image
    np.testing.assert_array_equal(again, crowded[3].image)
    assert (crowded[3].image != crowded[4].image).any()


def test_every_distractor_can_be_drawn():
    rng = np.random.default_rng(0)
    for outline in shapes_drawing.DISTRACTORS:
        placed = shapes_drawing.put_anywhere(rng, [outline], (64, 64), 30.0)
        shape = shapes_drawing.rasterize(placed, (64, 64), label=0)
        longest = max(shape.box[2] - shape.box[0], shape.box[3] - shape.box[1])
        assert longest == pytest.approx(30, abs=0.5)
        assert 0.2 < shape.area / (shape.coverage.shape[0] * shape.coverage.shape[1]) < 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_objects": 0}, "data.shapes.max_objects: 0 must be from 1 to 100"),
        ({"size_range": (0.5, 0.2)}, r"data.shapes.size_range: \(0.5, 0.2\) must be"),
        ({"size_range": (0.02, 0.2)}, "shapes.size_range: .* smaller than 3 pixels"),
        ({"imbalance": 0.5}, "data.shapes.imbalance: 0.5 must be at least 1"),
        ({"distractors": -1}, "data.shapes.distractors: -1 must be at least 0"),
    ],
)
def test_impossible_difficulties_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        source_of(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_images": 0}, "num_images: 0"),
        ({"image_size": (64, 16)}, "image_size: .* at least 32"),
    ],
)
def test_impossible_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ShapesSource(**({"num_images": 1, "image_size": (64, 64), "seed": 0} | fields))


def test_an_index_outside_is_an_error(source):
    for index in (-1, 300):
        with pytest.raises(IndexError, match=f"no image {index}"):
            source[index]
