"""Detections at many NMS IoUs from one compiled call, so a slider needs no further call.

At a different IoU, greedy NMS can keep different boxes, not just more or fewer. Inside one compiled
function, the network runs once and NMS once per IoU: the detections at each IoU equal those of
`predict` at that IoU.

A higher score threshold needs no such sweep: only better boxes suppress a box, so NMS followed by a
score threshold equals a score threshold followed by NMS. The same holds for the best
`max_detections`.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from retinanet_jax.config.settings import Config
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.image_input import ImageLike
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.data.pipeline.canvas import canvases
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.predict import predict
from retinanet_jax.inference.results import ImageDetections
from retinanet_jax.inference.streaming import Seen, Stream
from retinanet_jax.inference.test_time_augmentation import PLAIN
from retinanet_jax.inference.trained import Trained

STEPS = 20  # of the IoU from 0 (boxes must not overlap) to 1 (no NMS)


class SweptDetections(NamedTuple):
    """The detections of one image at each IoU.

    found: the distinct detections of all IoUs together, in no particular order.
    kept: for each IoU, indices into `found` by descending score.
    ious: the IoUs in ascending order.
    """

    found: ImageDetections
    kept: list[list[int]]
    ious: Sequence[float]

    def at(self, iou: float) -> ImageDetections:
        """Returns the detections at the nearest of the IoUs, by descending score."""
        nearest = int(np.argmin(np.abs(np.subtract(self.ious, iou))))
        return self.found[self.kept[nearest]]


class NmsSweep:
    """A trained network that gives its detections at every IoU; may be shared by threads.

    Attributes:
      config: configuration of the network, with the canvases 'few': two compilations for images of
        any size.
      categories: class names and category ids, by label.
      ious: IoUs of the sweep in ascending order, including config.postprocess.nms_iou.
      predict_fn: the compiled function: detections at each IoU, [b i d].
    """

    def __init__(self, trained: Trained | Detector):
        config = trained.config
        pipeline = dataclasses.replace(config.pipeline, eval_canvas="few")
        self.config = dataclasses.replace(config, pipeline=pipeline)
        self.categories = trained.categories
        steps = {step / STEPS for step in range(STEPS + 1)}
        self.ious = sorted(steps | {float(config.postprocess.nms_iou)})
        self._variables = jax.device_put(trained.variables)
        classes, anchors = trained.categories.num_classes, config.anchors.anchors_per_location
        model = build_model(config.model, classes, anchors)
        self.predict_fn = _make_sweep_fn(model, self.config, self.ious)
        self._lock = threading.Lock()  # two threads would compile the same function twice

    def __call__(self, image: ImageLike) -> SweptDetections:
        """Returns the detections of one image.

        Raises:
          DataError: as in a call of the Detector.
        """
        (swept,) = self.stream([image])
        return swept

    def stream(self, images: Iterable[ImageLike]) -> Iterator[SweptDetections]:
        """Yields the detections of each image, in order, as soon as they are ready.

        Raises:
          DataError: an image cannot be read; the results of earlier images were yielded before.
        """
        stream = Stream(self._launch, PLAIN, self.config.pipeline, rows=1)
        for seen in stream.run(enumerate(images)):
            if seen.error is not None:
                raise seen.error
            yield self._merge(seen)

    def warm_up(self) -> None:
        """Compiles now, for the canvases of landscape and portrait images."""
        for height, width in canvases(self.config.pipeline)[:2]:
            self(np.zeros((height, width, 3), np.uint8))

    def _launch(self, batch: Batch) -> Detections:
        with self._lock:
            return self.predict_fn(
                self._variables, batch.images, batch.image_sizes, batch.original_sizes
            )

    def _merge(self, seen: Seen) -> SweptDetections:
        boxes, scores, labels, kept = merge_ious(seen.found[0])
        found = ImageDetections(boxes, scores, labels, self.categories, seen.image, seen.size)
        return SweptDetections(found, kept, self.ious)


def _make_sweep_fn(model: Any, config: Config, ious: list[float]) -> Callable[..., Detections]:
    """`predict` at each IoU, compiled: detections [b i d]. The network runs once for all IoUs."""

    @jax.jit
    def sweep(variables, images, image_sizes, original_sizes):
        def at(nms_iou):
            arrays = images, image_sizes, original_sizes
            return predict(variables, *arrays, nms_iou, model=model, config=config)

        return jax.vmap(at, out_axes=1)(jnp.array(ious, jnp.float32))

    return sweep


def merge_ious(
    found: Detections,
) -> tuple[
    Float[np.ndarray, "k 4"], Float[np.ndarray, " k"], Int[np.ndarray, " k"], list[list[int]]
]:
    """Returns (boxes, scores, labels, kept) of one image's detections [i d].

    A detection that several IoUs keep appears once; `kept` has its index for each of these IoUs.
    """
    rows = np.concatenate([found.boxes, found.scores[..., None], found.labels[..., None]], -1)
    rows, valid = rows.astype(np.float64), np.asarray(found.valid)
    distinct, indices = np.unique(rows[valid], axis=0, return_inverse=True)
    ends = np.cumsum(valid.sum(axis=1))[:-1]
    kept = [part.tolist() for part in np.split(indices.reshape(-1), ends)]
    boxes, scores = distinct[:, :4].astype(np.float32), distinct[:, 4].astype(np.float32)
    return boxes, scores, distinct[:, 5].astype(np.int32), kept
