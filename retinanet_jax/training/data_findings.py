"""Checks a dataset before training: reports problems that the user should know, and fixes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.data.anchor_coverage import object_coverage
from retinanet_jax.data.data_errors import Report
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.object_table import ObjectTable, box_sides, fit_objects, read_objects
from retinanet_jax.data.pipeline.canvas import PipelineConfig
from retinanet_jax.training.finding import Finding

# A larger share of uncovered boxes is a finding: of all boxes, and of the boxes of a class.
UNCOVERED_SHARE = 0.05
UNCOVERED_SHARE_OF_CLASS = 0.2
# A fix is proposed if it leaves at most this part of the uncovered boxes.
HELPFUL = 0.75
# Fewer objects of a class say nothing about its share, and teach a network little.
MIN_OBJECTS = 10
# Number of images that are read at the start of a run: half a second for any dataset. With four
# objects per image, the standard error of a share of 0.05 is 0.005.
START_SAMPLE = 500


def check_coverage(dataset: Dataset, config: Config) -> Finding | None:
    """Checks whether the anchors miss too many boxes of a training set, on START_SAMPLE images.

    A box is uncovered if its best IoU over all anchors is below matching.negative_iou (0.4 in the
    paper): all anchors near it are background, except for a low-quality match. Boxes are measured
    in the resized image, without random augmentation. Crowds are ignored. The check applies only to
    matching.assigner 'iou', because other assigners choose anchors by other rules.
    """
    objects = read_objects(dataset.source, START_SAMPLE)
    return coverage_finding(objects, dataset.categories.names, config)


def coverage_finding(objects: ObjectTable, names: Sequence[str], config: Config) -> Finding | None:
    """Returns the finding of `check_coverage` for objects that were read already."""
    if config.matching.assigner != "iou":
        return None
    objects = objects.select(~objects.crowd)
    coverage = object_coverage(objects, config.pipeline, config.anchors)
    uncovered = coverage.uncovered(config.matching)
    share = uncovered.mean() if len(uncovered) else 0.0
    by_class = [uncovered[objects.labels == label] for label in range(len(names))]
    bad = [
        label
        for label, missed in enumerate(by_class)
        if missed.sum() >= MIN_OBJECTS and missed.mean() > UNCOVERED_SHARE_OF_CLASS
    ]
    if share <= UNCOVERED_SHARE and not bad:
        return None
    bad.sort(key=lambda label: -by_class[label].mean())
    classes = [f"{by_class[label].mean():.0%} of {names[label]}" for label in bad]
    where = f" ({_listed(classes, 3)})" if bad else ""
    matching = config.matching
    low_quality = (
        matching.low_quality != "none" and matching.low_quality_min_iou < matching.negative_iou
    )
    positives = "only a low-quality match" if low_quality else "no positive anchor"
    problem = (
        f"{share:.1%} of the training boxes have no anchor with an IoU of at least "
        f"{matching.negative_iou:g}{where}. {_shapes(objects, uncovered, config)} "
        f"Each of these boxes has {positives}, so the network hardly learns them."
    )
    return Finding(problem, _coverage_fix(objects, share, config))


def _shapes(objects: ObjectTable, uncovered: np.ndarray, config: Config) -> str:
    """Sides and ratios of the uncovered boxes, and those of the anchors."""
    boxes = fit_objects(objects, config.pipeline).boxes[uncovered]
    width, height = np.maximum(box_sides(boxes), 1e-3).T
    sides = "{:.0f} to {:.0f}".format(*np.percentile(np.sqrt(width * height), [10, 90]))
    ratios = "{:.2g} to {:.2g}".format(*np.percentile(height / width, [10, 90]))
    anchors = config.anchors
    smallest = anchors.size * min(anchors.scales) * 2**anchors.min_level
    largest = anchors.size * max(anchors.scales) * 2**anchors.max_level
    return (
        f"Most of them have sides of {sides} pixels and ratios (height / width) of {ratios}. The "
        f"anchors have sides of {smallest:.0f} to {largest:.0f} pixels and ratios of "
        f"{', '.join(f'{ratio:g}' for ratio in anchors.ratios)}."
    )


def _coverage_fix(objects: ObjectTable, share: float, config: Config) -> str:
    """The flags that help, with the share of uncovered boxes that they leave."""

    def remaining(pipeline: PipelineConfig, anchors: AnchorConfig) -> float:
        coverage = object_coverage(objects, pipeline, anchors)
        return float(coverage.uncovered(config.matching).mean())

    pipeline, anchors = config.pipeline, config.anchors
    by_size = []
    for size in [float(anchors.size * factor) for factor in (0.5, 0.75, 1.5, 2)]:
        share_left = remaining(pipeline, dataclasses.replace(anchors, size=size))
        by_size.append((share_left, f"--config.anchors.size={size!r}"))
    tried = [min(by_size)]
    for factor in (1.5, 2):
        low, high = round(factor * pipeline.min_side), round(factor * pipeline.max_side)
        larger = dataclasses.replace(pipeline, min_side=low, max_side=high)
        flags = f"--config.pipeline.min_side={low} --config.pipeline.max_side={high}"
        tried.append((remaining(larger, anchors), flags))
        if tried[-1][0] <= UNCOVERED_SHARE:
            break
    helpful = [
        f"{flags} reduces this to {left:.1%}" for left, flags in tried if left <= HELPFUL * share
    ]
    found = "; ".join(helpful) or "Neither another anchor size nor larger images help much"
    return f"{found}. To search for sizes, scales and ratios: retinanet-jax inspect --fit_anchors"


def class_findings(
    train: ObjectTable, evaluation: ObjectTable, names: Sequence[str], splits: tuple[str, str]
) -> list[Finding]:
    """Finds classes that are missing from a split, or have few objects to train on.

    Args:
      train, evaluation: objects of the two splits, without crowds.
      names: names of the classes.
      splits: names of the two splits.
    """
    in_train, in_evaluation = (
        np.bincount(objects.labels, minlength=len(names)).tolist()
        for objects in (train, evaluation)
    )
    counted = list(zip(names, in_train, in_evaluation, strict=True))
    fix = "Split the images differently, or add images of these classes."
    findings = []
    if only := [name for name, here, there in counted if here and not there]:
        problem = f"{_listed(only)}: in {splits[0]} but not in {splits[1]}, so never evaluated."
        findings.append(Finding(problem, fix))
    if only := [name for name, here, there in counted if there and not here]:
        problem = f"{_listed(only)}: in {splits[1]} but not in {splits[0]}, so never trained."
        findings.append(Finding(problem, fix))
    if nowhere := [name for name, here, there in counted if not here and not there]:
        problem = f"{_listed(nowhere)}: no objects in either split."
        findings.append(Finding(problem, "Remove unused classes from the categories."))
    if few := [f"{name} ({here})" for name, here, _ in counted if 0 < here < MIN_OBJECTS]:
        problem = f"{_listed(few)}: fewer than {MIN_OBJECTS} objects to train on."
        findings.append(Finding(problem, "Add images of these classes, or expect a low AP."))
    return findings


def empty_finding(everything: ObjectTable, split: str) -> Finding | None:
    """Reports a split without objects; it may have crowds."""
    if not everything.crowd.all():
        return None
    if count := len(everything.crowd):
        problem = f"{split} has no objects: all {count:,} are crowds, or difficult in Pascal VOC."
        fix = "Training ignores crowds and difficult objects; unmark the ones to learn."
        return Finding(problem, fix)
    fix = "Check the annotations: does each image_id match the id of an image?"
    return Finding(f"{split} has no objects.", fix)


def max_boxes_finding(train: ObjectTable, config: Config) -> Finding | None:
    """Reports training images with more objects than a batch has room for."""
    counts = np.bincount(train.image, minlength=len(train.numbers))
    limit = config.pipeline.max_boxes
    full = counts[counts > limit]
    if not len(full):
        return None
    problem = (
        f"{len(full):,} of {len(counts):,} training images have more than {limit} objects, up to "
        f"{full.max():,}. Their smallest {(full - limit).sum():,} objects are dropped, and the "
        "anchors there are background."
    )
    flag = f"--config.pipeline.max_boxes={full.max()}"
    return Finding(problem, f"{flag} keeps all objects. Matching then needs more memory on a GPU.")


def report_finding(split: str, report: Report) -> Finding:
    """Reports entries that were skipped or changed while the data was read."""
    counts = [f"{count:,} x {reason}" for reason, count in sorted(report.counts.items())]
    problem = f"{split}: entries were skipped or changed: {', '.join(counts)}."
    return Finding(problem, "The last section lists each one with its file and id.")


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
