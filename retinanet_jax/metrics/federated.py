"""Metrics of datasets that are not annotated for every class in every image, by hotcoco.

LVIS (Gupta et al., arXiv 1908.03195, section 2.4): an image counts for a class only if it shows
objects of the class or is known to show none (`neg_category_ids`), and unmatched detections do not
count where the class is not annotated exhaustively (`not_exhaustive_category_ids`). AP over IoUs
from .5 to .95 of up to 300 detections an image; APr, APc and APf of rare, common and frequent
classes (`frequency`).

Open Images (arXiv 1811.00982): AP at IoU .5 with all points of the curve; all detections inside one
box around a group (`is_group_of`, here also crowds) are one correct detection. hotcoco does not use
the verified labels of whole images, as the challenge's server does, so its numbers are lower.

LVIS's own package, `lvis` 0.5.3 of 2020, fails with NumPy 1.24 and later. With `numpy.float` put
back, its numbers were equal to hotcoco's in 20 random cases.
"""

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.metrics.coco import (
    UNDEFINED,
    CocoMetrics,
    check_inputs,
    required_fields,
    unique_names,
)
from retinanet_jax.metrics.coco_backends import import_hotcoco

FEDERATED_METRICS = ("lvis", "open_images")
LVIS_DETECTIONS = 300
"""Number of detections per image that LVIS counts."""
_LVIS_FIELDS = {
    "images": ("neg_category_ids", "not_exhaustive_category_ids"),
    "categories": ("frequency",),
}
_LVIS_NAMES = {name: name for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
_LVIS_NAMES |= {name: name for name in ("APr", "APc", "APf")}
_LVIS_NAMES |= {"AR300": "AR@300", "ARs": "ARs@300", "ARm": "ARm@300", "ARl": "ARl@300"}


def check_federated(metric: str) -> None:
    """Raises ValueError if the metric needs hotcoco and it is not installed."""
    if metric in FEDERATED_METRICS:
        import_hotcoco("evaluation.metric")


def lvis_average_precision(
    ground_truth: dict[str, Any] | str | Path, results: Sequence[dict[str, Any]]
) -> CocoMetrics:
    """LVIS's thirteen numbers and the AP of each category.

    Args:
      ground_truth: content of an LVIS annotation file, or its path.
      results: detections in COCO's results format.

    Returns:
      Numbers in [0, 1]; -1 where undefined.

    Raises:
      ValueError: a missing field, also of those that only LVIS has; an unknown id; hotcoco is not
        installed.
    """
    name, content, _ = check_inputs(ground_truth, results)
    for section, fields in _LVIS_FIELDS.items():
        for place, entry in enumerate(content[section]):
            missing = [field for field in fields if field not in entry]
            if missing:
                raise ValueError(
                    f"{name}: {section}[{place}] has no field {missing[0]!r}, which the metric "
                    "'lvis' needs; set data.annotations to LVIS's own file (lvis_v1_val.json)"
                )
    found = _evaluate(required_fields(content), results, lvis_style=True)
    summary = {ours: found[theirs] for ours, theirs in _LVIS_NAMES.items()}
    return CocoMetrics(summary, _by_class(found, content))


def open_images_average_precision(
    ground_truth: dict[str, Any] | str | Path, results: Sequence[dict[str, Any]]
) -> CocoMetrics:
    """AP50, the mean over the categories, and that of each category.

    Args:
      ground_truth: content of a COCO instances file, or its path; `is_group_of` or `iscrowd` marks
        boxes around groups.
      results: detections in COCO's results format.

    Returns:
      Numbers in [0, 1]; -1 where undefined.

    Raises:
      ValueError: a missing field or an unknown id; hotcoco is not installed.
    """
    _, content, _ = check_inputs(ground_truth, results)
    complete = required_fields(content)
    for annotation, given in zip(complete["annotations"], content["annotations"], strict=True):
        group = annotation["iscrowd"] or given.get("is_group_of", False)
        annotation |= {"iscrowd": 0, "is_group_of": bool(group)}
    found = _evaluate(complete, results, oid_style=True)
    by_class = _by_class(found, content)
    ap = found["AP"] if content["annotations"] else UNDEFINED
    return CocoMetrics({"AP50": ap}, by_class)


def _evaluate(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], **style: bool
) -> dict[str, float]:
    """hotcoco's numbers; those of a category are under 'AP/ID'."""
    hotcoco = import_hotcoco("evaluation.metric")
    categories = [{**one, "name": str(one["id"])} for one in truth["categories"]]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it says of Open Images is in `evaluation_warnings`
        ground_truth = hotcoco.COCO({**truth, "categories": categories})
        found = ground_truth.loadRes(list(results))
        evaluation = hotcoco.COCOeval(ground_truth, found, "bbox", **style)
        evaluation.run()
        return evaluation.get_results(per_class=True)


def _by_class(found: dict[str, float], content: dict[str, Any]) -> dict[str, float]:
    names = unique_names(content["categories"])
    return {name: found.get(f"AP/{number}", UNDEFINED) for number, name in names.items()}
