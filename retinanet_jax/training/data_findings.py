"""What a person should know about the data before training, in words, with what fixes it."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.data.anchor_coverage import cover
from retinanet_jax.data.data_errors import Report
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.object_table import ObjectTable, box_sides, fit_objects, read_objects
from retinanet_jax.data.pipeline.canvas import PipelineConfig


class Finding(NamedTuple):
    """A thing to know: what is the matter, and what to do about it."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}\n{self.fix}"


# Of all boxes, and of the boxes of a class: more than this share without an anchor is told.
UNCOVERED_SHARE = 0.05
UNCOVERED_SHARE_OF_CLASS = 0.2
# A fix is told if it leaves no more than this part of the uncovered boxes.
HELPS = 0.75
# Fewer objects of a class say nothing about its share, and little to a network.
FEW = 10
# At the start of a run so many images are looked at, half a second however many there are: with
# four objects each, a share of 0.05 is known to 0.005.
START_SAMPLE = 500


def check_coverage(dataset: Dataset, config: Config) -> Finding | None:
    """Whether anchors miss too many boxes of a training set; looks at START_SAMPLE images.

    A box is missed, or uncovered, if its best IoU over all anchors is below matching.negative_iou
    (0.4 in the paper): every anchor is background to it, but for what a low-quality match gives.
    Boxes are those of the resized image without random augmentation; crowds do not count.
    """
    objects = read_objects(dataset.source, START_SAMPLE)
    return coverage_finding(objects, dataset.categories.names, config)


def coverage_finding(objects: ObjectTable, names: Sequence[str], config: Config) -> Finding | None:
    """The finding of `check_coverage` for objects that are read already; None: nothing to tell."""
    objects = objects.select(~objects.crowd)
    uncovered = cover(objects, config.pipeline, config.anchors).uncovered(config.matching)
    share = uncovered.mean() if len(uncovered) else 0.0
    of_class = [uncovered[objects.labels == label] for label in range(len(names))]
    bad = [
        label
        for label, missed in enumerate(of_class)
        if missed.sum() >= FEW and missed.mean() > UNCOVERED_SHARE_OF_CLASS
    ]
    if share <= UNCOVERED_SHARE and not bad:
        return None
    bad.sort(key=lambda label: -of_class[label].mean())
    classes = [f"{of_class[label].mean():.0%} of {names[label]}" for label in bad]
    where = f" ({_listed(classes, 3)})" if bad else ""
    matching = config.matching
    rescued = (
        matching.low_quality != "none" and matching.low_quality_min_iou < matching.negative_iou
    )
    learnt = "a low-quality match each" if rescued else "nothing"
    problem = (
        f"{share:.1%} of the boxes to train on have no anchor with an IoU of "
        f"{matching.negative_iou:g}{where}. {_shapes(objects, uncovered, config)} "
        f"To them all anchors are background; they are learnt from {learnt}."
    )
    return Finding(problem, _coverage_fix(objects, share, config))


def _shapes(objects: ObjectTable, uncovered: np.ndarray, config: Config) -> str:
    """Sides and ratios of the uncovered boxes beside those of the anchors."""
    boxes = fit_objects(objects, config.pipeline).boxes[uncovered]
    width, height = np.maximum(box_sides(boxes), 1e-3).T
    sides = "{:.0f} to {:.0f}".format(*np.percentile(np.sqrt(width * height), [10, 90]))
    ratios = "{:.2g} to {:.2g}".format(*np.percentile(height / width, [10, 90]))
    anchors = config.anchors
    smallest = anchors.size * min(anchors.scales) * 2**anchors.min_level
    largest = anchors.size * max(anchors.scales) * 2**anchors.max_level
    return (
        f"Most of these boxes have {sides} pixels a side and ratios (height / width) of {ratios}; "
        f"anchors have {smallest:.0f} to {largest:.0f} pixels and ratios of "
        f"{', '.join(f'{ratio:g}' for ratio in anchors.ratios)}."
    )


def _coverage_fix(objects: ObjectTable, share: float, config: Config) -> str:
    """What was tried and helps, as flags."""

    def left(pipeline: PipelineConfig, anchors: AnchorConfig) -> float:
        return float(cover(objects, pipeline, anchors).uncovered(config.matching).mean())

    pipeline, anchors = config.pipeline, config.anchors
    sizes = [float(anchors.size * factor) for factor in (0.5, 0.75, 1.5, 2)]
    tried = [
        (left(pipeline, dataclasses.replace(anchors, size=size)), f"--config.anchors.size={size!r}")
        for size in sizes
    ]
    tried = [min(tried)]
    for factor in (1.5, 2):
        low, high = round(factor * pipeline.min_side), round(factor * pipeline.max_side)
        other = dataclasses.replace(pipeline, min_side=low, max_side=high)
        flags = f"--config.pipeline.min_side={low} --config.pipeline.max_side={high}"
        tried.append((left(other, anchors), flags))
        if tried[-1][0] <= UNCOVERED_SHARE:
            break
    helps = [f"with {flags} it is {less:.1%}" for less, flags in tried if less <= HELPS * share]
    found = "; ".join(helps) or "neither anchors of another size nor larger images help much"
    return (
        f"{found[0].upper()}{found[1:]}. To search sizes, scales and ratios: "
        "retinanet-jax inspect --fit_anchors"
    )


def class_findings(
    train: ObjectTable, evaluation: ObjectTable, names: Sequence[str], splits: tuple[str, str]
) -> list[Finding]:
    """Classes that one split alone has, or that have hardly an object to train on.

    Args:
      train, evaluation: without crowds.
      splits: their names.
    """
    trained, judged = (
        np.bincount(objects.labels, minlength=len(names)) for objects in (train, evaluation)
    )
    counted = list(zip(names, trained.tolist(), judged.tolist(), strict=True))
    divide = "Divide the images anew, or add images that show them."
    findings = []
    if only := [name for name, here, there in counted if here and not there]:
        problem = f"{_listed(only)}: in {splits[0]} but not in {splits[1]}, so never judged."
        findings.append(Finding(problem, divide))
    if only := [name for name, here, there in counted if there and not here]:
        problem = f"{_listed(only)}: in {splits[1]} but not in {splits[0]}, so never learnt."
        findings.append(Finding(problem, divide))
    if nowhere := [name for name, here, there in counted if not here and not there]:
        problem = f"{_listed(nowhere)}: no object in either split."
        findings.append(Finding(problem, "Take them out of the categories, if that is a slip."))
    if few := [f"{name} ({here})" for name, here, _ in counted if 0 < here < FEW]:
        problem = f"{_listed(few)}: fewer than {FEW} objects to train on."
        findings.append(Finding(problem, "Expect little of them, or add images that show them."))
    return findings


def empty_finding(objects: ObjectTable, split: str) -> Finding | None:
    """A split without any object."""
    if len(objects.labels):
        return None
    fix = "Check the annotations: does image_id name the ids of the images?"
    return Finding(f"{split} has no objects at all.", fix)


def max_boxes_finding(train: ObjectTable, config: Config) -> Finding | None:
    """Training images with more objects than a batch holds."""
    counts = np.bincount(train.image, minlength=len(train.numbers))
    limit = config.pipeline.max_boxes
    full = counts[counts > limit]
    if not len(full):
        return None
    problem = (
        f"{len(full):,} of {len(counts):,} images to train on with more than {limit} objects, up "
        f"to {full.max():,}. The smallest {(full - limit).sum():,} objects are never seen; their "
        "anchors are background."
    )
    fix = f"--config.pipeline.max_boxes={full.max()} keeps all; matching takes memory accordingly."
    return Finding(problem, fix)


def report_finding(split: str, report: Report) -> Finding:
    """What was skipped or changed when the data were prepared."""
    counts = [f"{count:,} x {reason}" for reason, count in sorted(report.counts.items())]
    problem = f"{split}: skipped or changed when the data were prepared: {', '.join(counts)}."
    return Finding(problem, "Each is listed by file and id at the end of the page.")


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
