"""The libraries that score boxes as COCO does: one function each, the same numbers from all.

pycocotools is the reference, COCO's own. hotcoco computes the same in Rust, a hundred times faster,
and its precisions were bit for bit the same in all comparisons (tests/test_metrics_coco.py makes
them again); faster-coco-eval came to a tenth of pycocotools's time, and to its numbers but for the
last bit.
"""

import contextlib
import io
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Scores(NamedTuple):
    """What a backend found.

    stats: COCO's twelve numbers in the order in which pycocotools prints them.
    precision: by IoU threshold, recall threshold, category (by rising id), area (all, small,
      medium, large) and limit of detections (1, 10, 100); -1 where there is nothing to find.
    """

    stats: Float[np.ndarray, "12"]
    precision: Float[np.ndarray, "t r k a d"]


def pycocotools_scores(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], image_ids: list[int]
) -> Scores:
    """Scores by pycocotools, which writes into `truth`: give it a copy."""
    from pycocotools.cocoeval import COCOeval  # here: a config can do without

    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = _index(truth)
        # loadRes looks at the first result to learn the kind, and fails where there is none.
        nothing = {**truth, "annotations": []}
        # It writes into results, too.
        copies = [dict(result) for result in results]
        found = ground_truth.loadRes(copies) if results else _index(nothing)
        return _run(COCOeval(ground_truth, found, "bbox"), image_ids)


def hotcoco_scores(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], image_ids: list[int]
) -> Scores:
    """Scores by hotcoco, an extra.

    Raises:
      ValueError: it is not installed.
    """
    hotcoco = _import_hotcoco()
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = hotcoco.COCO(truth)
        found = ground_truth.loadRes(list(results))
        return _run(hotcoco.COCOeval(ground_truth, found, "bbox"), image_ids)


BACKENDS: dict[str, Callable[..., Scores]] = {
    "pycocotools": pycocotools_scores,
    "hotcoco": hotcoco_scores,
}


def check_backend(name: str) -> None:
    """Raises ValueError, with the fix, if there is no such backend or it is not installed."""
    if name not in BACKENDS:
        raise ValueError(f"evaluation.backend: {name!r} is not one of {', '.join(BACKENDS)}")
    if name == "hotcoco":
        _import_hotcoco()


def _import_hotcoco() -> types.ModuleType:
    try:
        import hotcoco
    except ImportError as error:
        raise ValueError(
            "evaluation.backend: hotcoco is not installed; pip install 'hotcoco>=1.3', or write "
            "'pycocotools'"
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
