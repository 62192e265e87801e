"""The network without resizing, with or without NMS, as TensorRT, OpenVINO and LiteRT take it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.box_coder import decode
from retinanet_jax.core.box_outputs import join_levels
from retinanet_jax.core.boxes import clip
from retinanet_jax.core.centerness import class_scores
from retinanet_jax.core.layers import normalize
from retinanet_jax.export.program import Program, Size, describe_program, exported_model
from retinanet_jax.inference.predict import predict
from retinanet_jax.inference.trained import Trained


def network_arguments(canvas: Size) -> dict[str, jax.ShapeDtypeStruct]:
    """The input of the program by name; the batch size stays open."""
    (batch,) = export.symbolic_shape("batch")
    return {"images": jax.ShapeDtypeStruct((batch, *canvas, 3), jnp.float32)}


def make_network_program(trained: Trained, canvas: Size, *, nms: bool) -> Program:
    """A function of images float32 [b h w 3] that are on the canvas already: RGB from 0 to 255.

    Sizes are fixed but for the batch, and all numbers are float32.

    Returns:
        A function that returns what that of `make_program` does, in pixels of the canvas; without
        NMS 'boxes' [b n 4] of all anchors, clipped to the canvas, and 'scores' [b n k], which are
        sigmoids, or those of `class_scores`.
    """
    config = trained.config
    model = exported_model(trained)
    size, bound = np.array(canvas, np.float32), config.postprocess.max_log_scale
    lowest = -bound if config.postprocess.clamp_both_sides else -math.inf

    def detect(images):
        variables = jax.lax.optimization_barrier(trained.variables)
        if nms:
            sizes = jnp.broadcast_to(size, (images.shape[0], 2))
            return predict(variables, images, sizes, sizes, model=model, config=config)._asdict()
        predictions = model.apply(variables, normalize(images, config.pixels), train=False)
        anchors = np.concatenate(anchors_for_image(canvas, config.anchors))

        def boxes_of_image(deltas):
            boxes = decode(anchors, deltas, max_log_scale=bound, min_log_scale=lowest)
            return clip(boxes, size)

        logits = jnp.concatenate(predictions.class_logits, axis=1)
        outputs = join_levels(predictions.box_deltas)
        boxes = jax.vmap(boxes_of_image)(outputs.deltas)
        if outputs.centerness is None:
            scores = jax.nn.sigmoid(logits)
        else:
            scores = class_scores(logits, outputs.centerness)
        return {"boxes": boxes, "scores": scores}

    return detect


def describe_network(trained: Trained, canvas: Size, source: str, *, nms: bool) -> dict[str, Any]:
    """Returns the metadata of the file, like `describe_program`."""
    described = describe_program(trained, [canvas], source)
    height, width = canvas
    described["inputs"] = {
        "images": f"float32 [batch, {height}, {width}, 3]: RGB from 0 to 255, resized, in the top "
        "left corner; fill the rest with the colour pixels.mean"
    }
    if nms:
        boxes = described["outputs"]["boxes"].replace("the image", "the canvas")
        described["outputs"]["boxes"] = boxes
        return described
    count = sum(map(len, anchors_for_image(canvas, trained.config.anchors)))
    classes = trained.categories.num_classes
    described["outputs"] = {
        "boxes": f"float32 [batch, {count}, 4]: x1, y1, x2, y2 in pixels of the canvas",
        "scores": f"float32 [batch, {count}, {classes}]: score of each class, from 0 to 1",
    }
    return described
