"""Copy-paste: which objects come, where they are, what they cover."""

import dataclasses

import numpy as np
from image_data import ALL_ON, SMALL, Images

from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.batch import Example, box_areas
from retinanet_jax.data.pipeline.copy_paste import paste
from retinanet_jax.data.pipeline.host_augmentation import augment


def flat(color, boxes, size=(40, 60), crowd=None) -> Example:
    """An image of one colour; object i is a box of the colour plus 1 + i."""
    image, boxes = np.full((*size, 3), color, np.uint8), np.float32(boxes).reshape(-1, 4)
    for i, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2] = color + 1 + i
    labels = np.arange(len(boxes), dtype=np.int32)
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.array(crowd)
    return Example(image, boxes, labels, crowd, box_areas(boxes), color)


def test_pasted_objects_are_where_their_boxes_say():
    other = flat(100, [[0, 0, 8, 6], [20, 10, 30, 30], [40, 5, 59, 39]])
    counts = np.zeros(3)
    for seed in range(60):
        found = paste(flat(10, []), other, np.random.default_rng(seed), 0.25)
        assert found.image_id == 10 and found.image.shape == (40, 60, 3)
        outside = found.image[..., 0] == 10
        for box, label, area in zip(found.boxes, found.labels, found.areas, strict=True):
            x1, y1, x2, y2 = box.astype(int)
            assert (found.image[y1:y2, x1:x2] == 101 + label).all()
            assert not outside[y1:y2, x1:x2].any()
            outside[y1:y2, x1:x2] = True
            sides = other.boxes[label, 2:] - other.boxes[label, :2]
            np.testing.assert_array_equal(box[2:] - box[:2], sides)
            assert area == other.areas[label]
        assert outside.all()  # nothing else was changed
        counts[found.labels] += 1
    # Half of 60, less what would cover another one.
    assert (counts > 5).all() and (counts < 45).all()


def test_crowds_and_objects_that_do_not_fit_stay_behind():
    other = flat(100, [[0, 0, 8, 6], [0, 0, 60, 40]], crowd=[True, False])
    small = flat(10, [], size=(30, 30))
    for seed in range(10):
        assert len(paste(small, other, np.random.default_rng(seed), 0.25).boxes) == 0


def test_covered_objects_are_dropped_but_for_crowds():
    other = flat(100, [[0, 0, 60, 40]])  # as large as the image: it covers everything
    for crowd in (False, True):
        example, kept = flat(10, [[5, 5, 9, 9]], crowd=[crowd]), []
        for seed in range(10):
            found = paste(example, other, np.random.default_rng(seed), 0.25)
            covered = len(found.image[found.image == 101]) > 0
            kept.append((covered, len(found.boxes) - covered))
        assert set(kept) == {(True, int(crowd)), (False, 1)}


def test_augmentation_adds_objects_and_leaves_all_other_draws():
    images, count = Images(7), 7
    config = dataclasses.replace(ALL_ON, copy_paste=1.0)
    more = 0
    for index in range(7):
        key = (0, 3, 1, index)
        plain, pasted = (
            augment(images.__getitem__, index, count, key, SMALL, c) for c in (ALL_ON, config)
        )
        assert pasted.image.shape == plain.image.shape and pasted.flip == plain.flip
        more += len(pasted.boxes) > len(plain.boxes)
        limits = pasted.image.shape[1::-1] * 2
        assert (pasted.boxes >= 0).all() and (pasted.boxes <= limits).all()
    assert more >= 1
    assert config.of_single_images().copy_paste == 0 == AugmentationConfig().copy_paste
