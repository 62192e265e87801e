"""Contestant of the benchmarks of operations: this package."""

import sys
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import inputs
from benchmarks.contestants import serve, time_calls
from retinanet_jax.core.focal import focal_loss_from_labels
from retinanet_jax.core.nms import nms
from retinanet_jax.core.postprocess import PostprocessConfig, detect


def loss(num_anchors: int, num_classes: int) -> Callable[[], dict]:
    """Value and gradient of the focal loss, gamma and alpha traced as in the training step."""

    def total(logits, labels, gamma, alpha):
        return focal_loss_from_labels(logits, labels, gamma=gamma, alpha=alpha).sum()

    logits, labels = map(jax.device_put, inputs.loss_inputs(num_anchors, num_classes))
    return measured(jax.value_and_grad(total), logits, labels, 2.0, 0.25)


def postprocess(shrink: int, num_classes: int) -> Callable[[], dict]:
    """From the heads' outputs of one image to 100 detections."""
    levels = inputs.heads_outputs(shrink, num_classes)
    size = np.array(inputs.CANVAS, np.float32) // shrink

    def scores(logits, deltas, anchors):
        return detect(logits, deltas, anchors, size, PostprocessConfig()).scores

    return measured(scores, *jax.device_put([tuple(level) for level in levels.values()]))


def suppress(num_boxes: int, max_outputs: int) -> Callable[[], dict]:
    """The boxes that NMS keeps, by descending score."""

    def kept(boxes, scores, valid):
        return nms(boxes, scores, valid, iou_threshold=0.5, max_outputs=max_outputs)

    boxes, scores = inputs.crowded_boxes(num_boxes)
    arguments = jax.device_put((boxes, scores, np.ones(num_boxes, bool)))
    return measured(kept, *arguments, count=10)


def measured(function: Callable, *arguments, count: int = 1) -> Callable[[], dict]:
    """A function that times `count` compiled calls; its result is the sum of the first output."""
    compiled = jax.jit(function).lower(*arguments).compile()
    size = sum(x.nbytes for x in jax.tree.leaves(arguments) if isinstance(x, jax.Array))
    temporary = compiled.memory_analysis().temp_size_in_bytes / size
    result = float(np.sum(jax.tree.leaves(compiled(*arguments))[0]))
    device = jax.devices()[0].device_kind

    def work() -> dict:
        times = time_calls(lambda: jax.block_until_ready(compiled(*arguments)), count)
        return times | {"result": result, "temporary": temporary, "device": device}

    return work


CASES = {"loss": loss, "postprocess": postprocess, "nms": suppress}

if __name__ == "__main__":
    case, *sizes = sys.argv[1:]
    serve(CASES[case](*map(int, sizes)))
