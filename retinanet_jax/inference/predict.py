"""From a batch to detections: the compiled predict function."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Float, Float32, UInt8

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.layers import normalize
from retinanet_jax.core.postprocess import Detections, detect, to_original
from retinanet_jax.core.retinanet import Predictions
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.runtime.mesh import on_own_rows
from retinanet_jax.runtime.traced_programs import stored

PredictFn = Callable[[Any, Batch], Detections]


def predict(
    variables: Any,
    images: UInt8[ArrayLike, "b h w 3"] | Float32[ArrayLike, "b h w 3"],
    image_sizes: Float[ArrayLike, "b 2"],
    original_sizes: Float[ArrayLike, "b 2"],
    nms_iou: float | Float[ArrayLike, ""] | None = None,
    *,
    model: nn.Module,
    config: Config,
) -> Detections:
    """Returns detections [b d] in pixels of the original images, with a validity mask.

    Args:
        variables: 'params' and 'batch_stats' of the model.
        images: RGB, uint8 (float32 after torchvision's resizing), each image in the top left
            corner of its canvas.
        image_sizes: height and width of each image inside its canvas, pixels.
        original_sizes: height and width of each image as it was stored, pixels.
        nms_iou: replaces config.postprocess.nms_iou; may be traced.
        model: network from `build_model`.
        config: configuration, of which the sections pixels, anchors and postprocess are read.
    """
    predictions = run_network(variables, images, image_sizes, model=model, config=config)
    canvas = images.shape[1:3]
    return find_objects(predictions, canvas, image_sizes, original_sizes, config, nms_iou)


def run_network(
    variables: Any,
    images: UInt8[ArrayLike, "b h w 3"] | Float32[ArrayLike, "b h w 3"],
    image_sizes: Float[ArrayLike, "b 2"],
    *,
    model: nn.Module,
    config: Config,
) -> Predictions:
    """Returns the logits and box deltas of images; for the arguments, see `predict`."""
    inputs = normalize(images, config.pixels, image_sizes)
    return model.apply(variables, inputs, train=False)


def find_objects(
    predictions: Predictions,
    canvas: tuple[int, int],
    image_sizes: Float[ArrayLike, "b 2"],
    original_sizes: Float[ArrayLike, "b 2"],
    config: Config,
    nms_iou: float | Float[ArrayLike, ""] | None = None,
) -> Detections:
    """Returns the detections in predictions of `run_network`; see `predict` for other arguments.

    Args:
        predictions: outputs of the network.
        canvas: height and width of the network's input, pixels.
    """
    anchors = anchors_for_image(canvas, config.anchors)

    def one_image(class_logits, box_deltas, image_size, original_size):
        found = detect(class_logits, box_deltas, anchors, image_size, config.postprocess, nms_iou)
        return to_original(found, image_size, original_size)

    return jax.vmap(one_image)(*predictions, image_sizes, original_sizes)


def make_predict_fn(model: nn.Module, config: Config, mesh: Mesh | None = None) -> PredictFn:
    """Returns `predict` as a compiled function of (variables, batch); compiles once per canvas.

    With a mesh, each device predicts its own images of the batch.
    """
    function = on_own_rows(functools.partial(predict, model=model, config=config), mesh, whole=1)
    compiled = jax.jit(function)
    run = stored(
        compiled,
        function,
        f"predict {model!r} {config!r}",
        pack=tuple,
        unpack=lambda _, packed: Detections(*packed),
    )

    def predict_fn(variables: Any, batch: Batch) -> Detections:
        return run(variables, batch.images, batch.image_sizes, batch.original_sizes)

    predict_fn.compiled = compiled
    return predict_fn
