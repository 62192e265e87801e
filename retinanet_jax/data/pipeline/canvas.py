"""Settings of the pipeline, and the canvases of images and batches."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from retinanet_jax.core.field_checks import one_of
from retinanet_jax.data.pipeline import transforms

TRAIN_CANVASES = ("few", "one")
EVAL_CANVASES = (*TRAIN_CANVASES, "tight")


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """How images become batches. Defaults: the 800/1333 of every public RetinaNet.

    Attributes:
      min_side: short side in pixels after resizing.
      max_side: limit of the long side in pixels; if equal to min_side, the only canvas is square.
      pad_multiple: canvas sides are rounded up to multiples of this many pixels.
      max_boxes: maximum number of boxes per image; the largest are kept. 'auto': the maximum of the
        training images at the start of a run, but at least 100 (training/max_boxes.py).
      eval_resizing: how images are resized for evaluation and prediction: 'opencv' (as in
        training), or as 'torchvision', 'detectron2' or 'mmdetection' do: see transforms.resize.
      train_canvas: canvas of training batches. 'few': the smallest of `canvases` for each batch.
        'one': the smallest of them that holds every image of the set, so that one program is
        compiled.
      eval_canvas: canvas of evaluation batches. 'few' and 'one' as in training. 'tight': as small
        as each batch allows, as in the public implementations, which gives the same detections to
        the last digit but compiles for every new size. Prediction, which sees one image after
        another, uses 'one' instead of 'few'.
      num_threads: number of decoding threads; 0: one per core of this process.
      prefetch: number of batches prepared ahead.
      process_index: index of this process, which selects its rows of the global batch.
      process_count: number of processes that share a global batch.
    """

    min_side: int = 800
    max_side: int = 1333
    pad_multiple: int = 32
    max_boxes: int | str = 100
    eval_resizing: str = "opencv"
    train_canvas: str = "few"
    eval_canvas: str = "few"
    num_threads: int = 0
    prefetch: int = 2
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self):
        for name in ("min_side", "pad_multiple", "max_boxes", "prefetch", "process_count"):
            value = getattr(self, name)
            automatic = name == "max_boxes" and value == "auto"
            _require(automatic or value >= 1, name, value, "at least 1")
        _require(self.max_side >= self.min_side, "max_side", self.max_side, "at least min_side")
        for name, known in (
            ("eval_resizing", transforms.RESIZINGS),
            ("train_canvas", TRAIN_CANVASES),
            ("eval_canvas", EVAL_CANVASES),
        ):
            one_of(f"pipeline.{name}", getattr(self, name), known)
        _require(self.num_threads >= 0, "num_threads", self.num_threads, "0 (all cores) or more")
        in_range = 0 <= self.process_index < self.process_count
        _require(in_range, "process_index", self.process_index, "from 0 to process_count - 1")


def _require(holds: bool, field: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"pipeline.{field}: {value} must be {wanted}")


def canvases(settings: PipelineConfig) -> list[tuple[int, int]]:
    """Returns the (height, width) of all batches: landscape, portrait and square, or just one."""
    multiple = settings.pad_multiple
    low, high = (-(-s // multiple) * multiple for s in (settings.min_side, settings.max_side))
    return [(high, high)] if low == high else [(low, high), (high, low), (high, high)]


def fitted_sizes(
    sizes: Sequence[tuple[int, int]], settings: PipelineConfig
) -> Int[np.ndarray, "n 2"]:
    """Returns (height, width) of images of those sizes after resizing without jitter."""
    sides = settings.min_side, settings.max_side
    fitted = [transforms.fitted_size(size, *sides) for size in sizes]
    return np.array(fitted, int).reshape(-1, 2)


def eval_size(size: tuple[int, int], settings: PipelineConfig) -> tuple[int, int]:
    """Returns (height, width) to which an image of that size is resized for evaluation."""
    floor = settings.eval_resizing == "torchvision"
    return transforms.fitted_size(size, settings.min_side, settings.max_side, floor=floor)


def eval_canvas_for(sizes: Int[np.ndarray, "n 2"], settings: PipelineConfig) -> tuple[int, int]:
    """Returns the canvas of an evaluation batch, for the resized (height, width) of its images."""
    if settings.eval_canvas != "tight":
        return canvas_for(sizes, settings)
    multiple = settings.pad_multiple
    height, width = (-(-sizes.max(axis=0) // multiple) * multiple).tolist()
    return height, width


def orientations(sizes: Int[np.ndarray, "n 2"], settings: PipelineConfig) -> np.ndarray:
    """Returns 0 if only the landscape canvas fits, 2 if only portrait does, else 1."""
    if len(canvases(settings)) == 1:
        return np.ones(len(sizes), int)
    landscape, portrait, _ = ((sizes <= canvas).all(1) for canvas in canvases(settings))
    return np.where(landscape & portrait, 1, np.where(landscape, 0, 2))


def canvas_for(
    sizes: Int[np.ndarray, "n 2"] | Sequence[tuple[int, int]], settings: PipelineConfig
) -> tuple[int, int]:
    """Returns the smallest canvas that holds images of all these (height, width), after resizing.

    Raises:
      ValueError: an image is larger than every canvas.
    """
    sizes = np.asarray(sizes).reshape(-1, 2)
    for canvas in canvases(settings):
        if (sizes <= canvas).all():
            return canvas
    raise ValueError(f"images of {sizes.max(0).tolist()} fit no canvas: resize them first")


def jitter_bound(size: tuple[int, int], settings: PipelineConfig) -> tuple[int, int]:
    """Returns the (height, width) that an augmented image may fill in any canvas it may get."""
    fitted = transforms.fitted_size(size, settings.min_side, settings.max_side)
    fitting = [c for c in canvases(settings) if fitted[0] <= c[0] and fitted[1] <= c[1]]
    return min(c[0] for c in fitting), min(c[1] for c in fitting)
