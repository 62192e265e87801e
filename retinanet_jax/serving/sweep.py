"""Detections at many IoUs of NMS at once, so that a slider needs no further call.

Greedy NMS at another IoU can keep other boxes, and not only more or fewer of them. The network runs
once, and NMS once for each IoU, inside one compiled function: what is shown at a notch of the
slider is what `predict` gives at that IoU.

A higher score threshold needs nothing of the kind: a box is suppressed by better ones alone, so
that leaving out what scores less, after NMS, is NMS of what scores more. The same holds for the
best `max_detections`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from retinanet_jax.config.settings import Config
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.data.pipeline.canvas import canvases
from retinanet_jax.inference.predict import Trained, predict
from retinanet_jax.inference.streaming import Stream
from retinanet_jax.inference.test_time_augmentation import PLAIN

STEPS = 20  # of the slider from 0, no overlap at all, to 1, no NMS


class Swept(NamedTuple):
    """What an image holds, at each IoU.

    boxes: different detections of all IoUs together, xyxy in pixels of the image as it is stored.
    scores: in [0, 1].
    labels: contiguous from 0.
    kept: for each IoU, indices of its detections by falling score.
    """

    boxes: Float[np.ndarray, "k 4"]
    scores: Float[np.ndarray, " k"]
    labels: Int[np.ndarray, " k"]
    kept: list[list[int]]


class IouSweep:
    """A trained network, ready to be called on an image; for one thread at a time.

    Attributes:
      config: that of the network, with the canvases 'few', so that it compiles twice at most for
        images of any size.
      categories: class names and category ids, by label.
      ious: those of the slider, rising, and that of the config among them.
      predict_fn: the compiled function: detections at each IoU, [b i d].
    """

    def __init__(self, trained: Trained):
        config = trained.config
        pipeline = dataclasses.replace(config.pipeline, eval_canvas="few")
        self.config = dataclasses.replace(config, pipeline=pipeline)
        self.categories = trained.categories
        notches = {step / STEPS for step in range(STEPS + 1)}
        self.ious = sorted(notches | {float(config.postprocess.nms_iou)})
        self._variables = jax.device_put(trained.variables)
        classes, anchors = trained.categories.num_classes, config.anchors.anchors_per_location
        model = build_model(config.model, classes, anchors)
        self.predict_fn = _make_sweep_fn(model, self.config, self.ious)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Swept:
        """The detections in an RGB image."""
        stream = Stream(self._launch, PLAIN, self.config.pipeline, rows=1)
        (seen,) = stream.run([(0, image)])
        return merge_ious(seen.found[0])

    def warm_up(self) -> None:
        """Compiles now for the canvases of landscapes and portraits."""
        for height, width in canvases(self.config.pipeline)[:2]:
            self(np.zeros((height, width, 3), np.uint8))

    def _launch(self, batch: Batch) -> Detections:
        return self.predict_fn(
            self._variables, batch.images, batch.image_sizes, batch.original_sizes
        )


def _make_sweep_fn(model: Any, config: Config, ious: list[float]) -> Callable[..., Detections]:
    """`predict` at each IoU, compiled: detections [b i d]. What no IoU changes is computed once."""

    @jax.jit
    def sweep(variables, images, image_sizes, original_sizes):
        def at(nms_iou):
            arrays = images, image_sizes, original_sizes
            return predict(variables, *arrays, nms_iou, model=model, config=config)

        return jax.vmap(at, out_axes=1)(jnp.array(ious, jnp.float32))

    return sweep


def merge_ious(found: Detections) -> Swept:
    """The detections [i d] of one image; one that several IoUs keep is there once."""
    rows = np.concatenate([found.boxes, found.scores[..., None], found.labels[..., None]], -1)
    rows, valid = rows.astype(np.float64), np.asarray(found.valid)
    different, indices = np.unique(rows[valid], axis=0, return_inverse=True)
    ends = np.cumsum(valid.sum(axis=1))[:-1]
    kept = [part.tolist() for part in np.split(indices.reshape(-1), ends)]
    boxes, scores, labels = different[:, :4], different[:, 4], different[:, 5]
    return Swept(boxes, scores, labels.astype(int), kept)
