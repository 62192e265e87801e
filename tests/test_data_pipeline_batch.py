"""Collating: padding, the largest boxes kept, incomplete batches, images that do not fit."""

import logging

import jax
import numpy as np
import pytest

from retinanet_jax.data.pipeline.batch import (
    DroppedBoxes,
    Example,
    box_areas,
    collate,
    padding_batch,
)


def example(size, boxes, image_id=7, **fields) -> Example:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.arange(len(boxes), dtype=np.int32)
    image = np.full((*size, 3), 200, np.uint8)
    crowd = np.zeros(len(boxes), bool)
    return Example(image, boxes, labels, crowd, box_areas(boxes), image_id, **fields)


def test_the_image_lies_in_the_top_left_corner_and_the_rest_is_zero():
    host = collate([example((3, 5), [[1, 0, 4, 2]])], (4, 8), 2, 1)
    images = host.batch.images
    assert images.shape == (1, 4, 8, 3) and images.dtype == np.uint8
    assert (images[0, :3, :5] == 200).all() and images.sum() == 200 * 3 * 5 * 3
    np.testing.assert_array_equal(host.batch.image_sizes, [[3, 5]])
    np.testing.assert_array_equal(host.batch.original_sizes, [[3, 5]])


def test_boxes_are_padded_with_label_minus_one():
    batch = collate([example((8, 8), [[1, 2, 3, 4]])], (8, 8), 3, 1).batch
    np.testing.assert_array_equal(batch.gt_boxes[0], [[1, 2, 3, 4], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(batch.gt_labels, [[0, -1, -1]])
    assert batch.gt_boxes.dtype == np.float32 and batch.gt_labels.dtype == np.int32
    assert not batch.gt_crowd.any()


def test_the_stored_size_is_kept_beside_the_size_in_the_canvas():
    batch = collate([example((8, 8), [], original_size=(80, 60))], (8, 8), 1, 1).batch
    np.testing.assert_array_equal(batch.image_sizes, [[8, 8]])
    np.testing.assert_array_equal(batch.original_sizes, [[80, 60]])


def test_missing_rows_are_not_valid_and_have_finite_sizes():
    host = collate([example((4, 4), [[0, 0, 1, 1]])], (4, 6), 2, 3)
    np.testing.assert_array_equal(host.batch.valid, [True, False, False])
    np.testing.assert_array_equal(host.image_ids, [7, -1, -1])
    np.testing.assert_array_equal(host.batch.image_sizes[1:], [[4, 6]] * 2)
    assert (host.batch.gt_labels[1:] == -1).all() and not host.batch.images[1:].any()


def test_no_example_and_no_box_are_fine():
    assert not collate([], (4, 4), 2, 2).batch.valid.any()
    batch = collate([example((4, 4), [])], (4, 4), 2, 1).batch
    assert batch.valid.all() and (batch.gt_labels == -1).all()


def test_of_too_many_boxes_the_largest_are_kept_in_order_counted_and_said_once(caplog):
    boxes = [[0, 0, 2, 2], [0, 0, 9, 9], [0, 0, 1, 1], [0, 0, 5, 5]]
    dropped = DroppedBoxes()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            batch = collate([example((9, 9), boxes)], (9, 9), 2, 1, dropped=dropped).batch
    np.testing.assert_array_equal(batch.gt_labels, [[1, 3]])
    np.testing.assert_array_equal(batch.gt_boxes[0], [boxes[1], boxes[3]])
    # Seen three times, counted once.
    assert dropped.summary().startswith("max_boxes left out 2 boxes, the smallest, of 1 image")
    (record,) = caplog.records
    assert "image 7 has 4 boxes" in record.getMessage() and "max_boxes" in record.getMessage()


def test_ten_thousand_boxes_in_one_image_are_cut_to_the_largest_and_summed_up():
    dropped = DroppedBoxes()
    assert dropped.summary() == ""
    side = np.random.default_rng(0).permutation(10_000) / 100 + 0.01
    boxes = np.stack([0 * side, 0 * side, side, side], axis=1)
    for image_id in range(7):
        host = collate([example((128, 128), boxes, image_id)], (128, 128), 100, 1, dropped=dropped)
    np.testing.assert_allclose(np.sort(host.batch.gt_boxes[0, :, 2]), np.sort(side)[-100:])
    said = dropped.summary()
    assert "69300 boxes" in said and "7 images: id 0, 1, 2, 3, 4, ...;" in said


def test_a_image_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"image 7 is 9 x 4 .* canvas of 8 x 8"):
        collate([example((9, 4), [])], (8, 8), 1, 1)


def test_more_examples_than_rows_is_an_error():
    with pytest.raises(ValueError, match="2 examples for a batch_size of 1"):
        collate([example((4, 4), [])] * 2, (4, 4), 1, 1)


def test_a_device_of_the_cpu_takes_the_memory_of_a_batch_as_it_is():
    for width in (4, 5, 7):
        for dtype in (np.uint8, np.float32):
            images = padding_batch((3, width), 2, 3, dtype=dtype).batch.images
            assert images.ctypes.data % 64 == 0 and images.flags.c_contiguous
            assert images.dtype == dtype and images.shape == (3, 3, width, 3) and not images.any()
            images[:] = 1
            on_device = jax.device_put(images)
            assert on_device.unsafe_buffer_pointer() == images.ctypes.data


def test_crowds_are_marked_at_their_boxes():
    """Also where boxes are left out: the smallest one goes."""
    boxes = [[0, 0, 6, 6], [0, 0, 1, 1], [0, 0, 4, 4]]
    crowded = example((8, 8), boxes)._replace(crowd=np.array([False, False, True]))
    for most, expected in ((4, [0, 0, 1, 0]), (2, [0, 1])):
        batch = collate([crowded], (8, 8), most, 1).batch
        crowds = batch.gt_boxes[0][batch.gt_crowd[0]]
        assert batch.gt_crowd.sum() == sum(expected)
        np.testing.assert_array_equal(crowds, [[0, 0, 4, 4]])
