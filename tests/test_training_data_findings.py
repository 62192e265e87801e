"""Findings about data before training: coverage, classes, crowded images; and fitted anchors."""

import dataclasses

import numpy as np
import pytest
from memory_data import MemorySource, memory_dataset, objects_of, random_objects
from small import small_config

from retinanet_jax.config.settings import default_config
from retinanet_jax.data.anchor_coverage import object_coverage
from retinanet_jax.data.example_sources import Concatenation, Slice
from retinanet_jax.data.object_table import fit_objects, read_objects
from retinanet_jax.data.shapes import ShapesSource
from retinanet_jax.reports.inspection.fit_anchors import as_flags, as_python, fit_anchors
from retinanet_jax.training.data_findings import (
    START_SAMPLE,
    check_coverage,
    class_findings,
    coverage_finding,
    empty_finding,
    max_boxes_finding,
)

COVERED, MISSED = [16, 16, 48, 48], [20, 20, 24, 24]  # the smallest anchor has 32 pixels


def test_objects_equal_those_of_the_examples():
    source = ShapesSource(num_images=30, image_size=(48, 64), seed=3)
    parts = Slice(source, range(10, 14)), Slice(source, range(20, 22))
    joined = Concatenation(parts)
    objects = read_objects(joined, 100)
    examples = [joined[i] for i in range(6)]
    np.testing.assert_array_equal(objects.boxes, np.concatenate([e.boxes for e in examples]))
    np.testing.assert_array_equal(objects.labels, np.concatenate([e.labels for e in examples]))
    counts = [len(e.boxes) for e in examples]
    np.testing.assert_array_equal(objects.image, np.repeat(np.arange(6), counts))
    assert (objects.sizes == (48, 64)).all() and objects.total == 6
    areas = [a["area"] for a in source.ground_truth()["annotations"] if 10 <= a["image_id"] < 14]
    np.testing.assert_allclose(objects.areas[: len(areas)], areas)


def test_many_images_are_subsampled_evenly():
    source = MemorySource([objects_of([COVERED])] * 25)
    objects = read_objects(source, 10)
    assert objects.numbers.tolist() == list(range(0, 25, 3)) and objects.total == 25
    assert read_objects(source, 25).numbers.tolist() == list(range(25))
    assert len(read_objects(MemorySource([]), 10).labels) == 0


def test_boxes_are_resized_with_their_images():
    config = small_config(pipeline__min_side=32, pipeline__max_side=64).pipeline
    source = MemorySource([objects_of([[10, 20, 50, 120]])], size=(128, 64))
    fitted = fit_objects(read_objects(source, 1), config)
    assert fitted.sizes.tolist() == [[64, 32]] and fitted.canvases.tolist() == [[64, 32]]
    assert fitted.boxes.tolist() == [[5, 10, 25, 60]]


@pytest.mark.parametrize(("missed", "warns"), [(5, False), (6, True)])
def test_more_than_five_percent_of_uncovered_boxes_are_a_finding(missed, warns):
    images = [objects_of([MISSED])] * missed + [objects_of([COVERED])] * (100 - missed)
    finding = check_coverage(memory_dataset(images), small_config())
    assert (finding is not None) == warns
    if warns:
        assert finding.problem.startswith("6.0% of the training boxes have no anchor")
        assert "sides of 4 to 4 pixels" in finding.problem and "32 to 102" in finding.problem
        assert "--config.pipeline.min_side=" in finding.fix or "Neither" in finding.fix


def test_a_rare_class_that_is_uncovered_is_named():
    images = [objects_of([COVERED] * 49 + [MISSED], [0] * 49 + [1])] * 10
    finding = check_coverage(memory_dataset(images, names=("common", "rare")), small_config())
    assert finding.problem.startswith("2.0% ") and "(100% of rare)" in finding.problem


def test_the_proposed_flag_covers_the_boxes():
    config = small_config()
    images = random_objects(0, [(15, 15)], images=40)
    objects = read_objects(MemorySource(images), 40)
    finding = coverage_finding(objects, ("thing",), config)
    assert finding.fix.startswith("--config.anchors.size=2.0 reduces this to 0.0%")
    other = dataclasses.replace(config.anchors, size=2.0)
    assert not object_coverage(objects, config.pipeline, other).uncovered(config.matching).any()


def test_only_matching_by_iou_is_checked():
    dataset = memory_dataset([objects_of([MISSED] * 20)])
    assert check_coverage(dataset, small_config()) is not None
    assert check_coverage(dataset, small_config(matching__assigner="atss")) is None


def test_crowds_and_empty_images_are_no_finding():
    config = small_config()
    crowds = [objects_of([MISSED] * 20, crowd=[1] * 20), objects_of([])]
    assert check_coverage(memory_dataset(crowds), config) is None
    assert check_coverage(memory_dataset([objects_of([])]), config) is None


def test_only_a_sample_is_read_at_the_start():
    class Counting(MemorySource):
        read = 0

        def annotated(self, index):
            Counting.read += 1
            return super().annotated(index)

    source = Counting([objects_of([COVERED])] * (5 * START_SAMPLE))
    dataset = dataclasses.replace(memory_dataset([]), source=source)
    assert check_coverage(dataset, small_config()) is None
    assert Counting.read == START_SAMPLE


def test_classes_missing_from_a_split_are_a_finding():
    names = ("both", "left", "right", "nowhere")
    left = read_objects(MemorySource([objects_of([COVERED] * 30, [0] * 20 + [1] * 10)]), 1)
    right = read_objects(MemorySource([objects_of([COVERED] * 3, [0, 2, 2])]), 1)
    found = [str(finding) for finding in class_findings(left, right, names, ("train", "val"))]
    assert [text.split(":")[0] for text in found] == ["left", "right", "nowhere"]
    assert "in train but not in val, so never evaluated" in found[0]
    assert "in val but not in train, so never trained" in found[1]
    few = class_findings(right, left, names, ("train", "val"))[-1]
    assert few.problem.startswith("both (1), right (2): fewer than 10 objects")


def test_empty_splits_and_crowded_images_are_findings():
    config = small_config(pipeline__max_boxes=7)
    empty = read_objects(MemorySource([objects_of([])]), 1)
    full = read_objects(MemorySource([objects_of([COVERED] * 7), objects_of([COVERED] * 9)]), 2)
    assert "val has no objects" in empty_finding(empty, "val").problem
    crowds = read_objects(MemorySource([objects_of([COVERED] * 3, crowd=[1] * 3)]), 1)
    assert "train has no objects: all 3 are crowds" in empty_finding(crowds, "train").problem
    assert empty_finding(full, "train") is None and max_boxes_finding(empty, config) is None
    finding = max_boxes_finding(full, config)
    assert "1 of 2 training images" in finding.problem and "smallest 2 objects" in finding.problem
    assert finding.fix.startswith("--config.pipeline.max_boxes=9 ")


def test_thin_boxes_get_anchors_that_fit():
    config = small_config()
    source = MemorySource(random_objects(1, [(60, 7), (40, 5), (30, 30)]))
    objects = read_objects(source, 20)
    fit = fit_anchors(objects, config)
    assert fit.config != config.anchors
    # The stride of 8 pixels limits the IoU of boxes 5 pixels high.
    assert fit.held_out_before.positive < 0.4 and fit.held_out_after.positive > 0.7
    assert fit.after.positive > fit.before.positive
    assert min(fit.config.ratios) < 0.25
    assert fit.config.anchors_per_location == config.anchors.anchors_per_location
    assert fit_anchors(objects, config) == fit


@pytest.mark.parametrize("seed", range(4))
def test_fitting_never_lowers_the_coverage_of_held_out_boxes(seed):
    config = small_config(anchors__rounding="torchvision", anchors__order="ratio_major")
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(4), np.log(60), (8, 2)))
    objects = read_objects(MemorySource(random_objects(seed, sides, images=6)), 6)
    fit = fit_anchors(objects, config, seed)
    assert fit.held_out_after.positive >= fit.held_out_before.positive
    assert (fit.config == config.anchors) == (fit.held_out_after == fit.held_out_before)


def test_anchors_that_fit_are_kept():
    config = small_config()
    fit = fit_anchors(read_objects(MemorySource(random_objects(0, [(32, 32)])), 20), config)
    assert fit.config == config.anchors and fit.held_out_before.positive == 1


def test_fitting_to_one_image_is_an_error():
    objects = read_objects(MemorySource([objects_of([COVERED]), objects_of([])]), 2)
    with pytest.raises(ValueError, match="1 images with objects"):
        fit_anchors(objects, small_config())


def test_fitted_anchors_as_python_and_as_flags():
    anchors = dataclasses.replace(
        small_config().anchors, size=1.5, scales=(1.0,), ratios=(0.5, 2.0)
    )
    tree = default_config()
    exec(as_python(anchors), {"config": tree})
    assert (tree.anchors.size, tree.anchors.scales, tree.anchors.ratios) == (1.5, (1.0,), (0.5, 2))
    assert as_flags(anchors) == (
        "'--config.anchors.size=1.5' \\\n'--config.anchors.scales=(1.0,)' \\\n"
        "'--config.anchors.ratios=(0.5, 2.0)'"
    )
