"""Detections at every NMS IoU from one call: equal to the Detector's at each of them."""

import dataclasses

import numpy as np
import pytest
from small_detector import TALL, WIDE, small_detector, small_network

from retinanet_jax.core.postprocess import Detections
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.inference.nms_sweep import NmsSweep, merge_ious
from retinanet_jax.inference.trained import Trained


@pytest.fixture(scope="module")
def sweep():
    return NmsSweep(Trained(*small_network()))


def noise(seed: int = 0, size: tuple[int, int] = WIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize(
    "fields", [{"nms_iou": 0.3}, {"nms_iou": 0.75, "score_threshold": 0.2}, {"nms_iou": 1.0}]
)
def test_each_iou_gives_the_detections_of_a_detector_with_it(sweep, fields):
    image = noise(1, TALL)
    expected = small_detector().with_postprocess(**fields)(image)
    found = sweep(image).at(fields["nms_iou"]).select(threshold=fields.get("score_threshold", 0))
    assert len(expected) > 5
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    assert found.size == TALL and found.categories == expected.categories


def test_nothing_compiles_after_warm_up(sweep):
    sweep.warm_up()
    compiled = sweep.predict_fn._cache_size()
    sizes = TALL, WIDE, (50, 200), (200, 200)
    swept = list(sweep.stream(noise(2, size) for size in sizes))
    assert [one.found.size for one in swept] == list(sizes)
    assert all(len(one.kept) == len(sweep.ious) for one in swept)
    assert sweep.predict_fn._cache_size() == compiled


def test_an_image_that_cannot_be_read_raises_after_those_before_it(sweep):
    stream = sweep.stream([noise(), "nowhere.jpg"])
    next(stream)
    with pytest.raises(DataError, match=r"nowhere\.jpg"):
        next(stream)


def test_detections_of_some_ious_or_of_none_are_merged():
    boxes = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    found = Detections(boxes, boxes[..., 0], boxes[..., 0].astype(np.int32), boxes[..., 0] < 0)
    merged, _, _, kept = merge_ious(found)
    assert merged.shape == (0, 4) and kept == [[], [], []]
    valid = np.array([[True, True], [False, False], [True, False]])
    _, _, labels, kept = merge_ious(found._replace(valid=valid))
    assert labels.tolist() == [0, 4, 16] and kept == [[0, 1], [], [2]]


def test_the_iou_of_the_config_is_among_those_of_the_sweep():
    variables, config, categories = small_network()
    postprocess = dataclasses.replace(config.postprocess, nms_iou=0.625)
    config = dataclasses.replace(config, postprocess=postprocess)
    ious = NmsSweep(Trained(variables, config, categories)).ious
    assert 0.625 in ious and ious == sorted(ious) and len(ious) == 22
