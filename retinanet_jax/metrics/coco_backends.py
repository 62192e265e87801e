"""Libraries for COCO's metric: a function for each, with equal results.

pycocotools is COCO's own, the reference. hotcoco is written in Rust and thirty times faster. Its
precisions were equal to the last bit in all comparisons, and tests/test_metrics_coco.py repeats
them. faster-coco-eval took a tenth of the time of pycocotools and differed in the last bit.
"""

import contextlib
import io
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Scores(NamedTuple):
    """The result of a backend.

    stats: COCO's twelve numbers in the order of pycocotools.
    precision: by IoU threshold, recall threshold, category (by rising id), area (all, small,
      medium, large) and number of detections (1, 10, 100); -1 without objects.
    """

    stats: Float[np.ndarray, "12"]
    precision: Float[np.ndarray, "t r k a d"]


def pycocotools_scores(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], image_ids: list[int]
) -> Scores:
    """Evaluation by pycocotools, which modifies `truth`."""
    from pycocotools.cocoeval import COCOeval  # here: a config does not need it

    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = _index(truth)
        # loadRes fails without results: it infers their kind from the first one.
        nothing = {**truth, "annotations": []}
        # It modifies the results, too.
        copies = [dict(result) for result in results]
        found = ground_truth.loadRes(copies) if results else _index(nothing)
        return _run(COCOeval(ground_truth, found, "bbox"), image_ids)


def hotcoco_scores(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], image_ids: list[int]
) -> Scores:
    """Evaluation by hotcoco, an optional requirement.

    Raises:
      ValueError: hotcoco is not installed.
    """
    hotcoco = import_hotcoco("evaluation.backend")
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = hotcoco.COCO(truth)
        found = ground_truth.loadRes(list(results))
        return _run(hotcoco.COCOeval(ground_truth, found, "bbox"), image_ids)


BACKENDS: dict[str, Callable[..., Scores]] = {
    "pycocotools": pycocotools_scores,
    "hotcoco": hotcoco_scores,
}


def check_backend(name: str) -> None:
    """Raises ValueError if the backend is unknown or not installed."""
    if name not in BACKENDS:
        raise ValueError(f"evaluation.backend: {name!r} is not one of {', '.join(BACKENDS)}")
    if name == "hotcoco":
        import_hotcoco("evaluation.backend")


def import_hotcoco(field: str) -> types.ModuleType:
    """The module; raises ValueError, which names the field that needs it, if it is missing."""
    try:
        import hotcoco
    except ImportError as error:
        other = "pycocotools" if field == "evaluation.backend" else "coco"
        raise ValueError(
            f"{field}: hotcoco is not installed; run pip install 'hotcoco>=1.3', or use {other!r}"
        ) from error
    return hotcoco


def _index(content: dict[str, Any]) -> Any:
    """A pycocotools.coco.COCO."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _run(evaluation: Any, image_ids: list[int]) -> Scores:
    evaluation.params.imgIds = image_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return Scores(np.array(evaluation.stats[:12]), np.asarray(evaluation.eval["precision"]))
