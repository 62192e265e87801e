"""One function of arrays, from uint8 images of any size to detections, and its description."""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array

from retinanet_jax.config.canvas_flag import read_canvas
from retinanet_jax.config.settings import Config
from retinanet_jax.core.retinanet import RetinaNet, build_model
from retinanet_jax.data.pipeline.canvas import canvases
from retinanet_jax.export.resizing import fitted_sizes, resize
from retinanet_jax.inference.predict import predict
from retinanet_jax.inference.trained import Trained

Program = Callable[..., dict[str, Array]]
Arguments = Mapping[str, jax.ShapeDtypeStruct]  # of a program, by name, in order
Size = tuple[int, int]


def choose_canvases(text: str, config: Config) -> list[Size]:
    """Returns the sizes of the network's input: that of --canvas, or the canvases of the Detector.

    Raises:
        ConfigError: see `read_canvas`.
    """
    if text:
        return [read_canvas(text, config.pipeline)]
    return canvases(config.pipeline)[:2]  # landscape and portrait; the square is for mixed batches


def compare_with_detector(chosen: Sequence[Size], config: Config) -> str:
    """Says how the canvases of a file differ from those of the Detector; '' if they do not.

    The network sees padding, so that each canvas gives slightly different scores and boxes.
    """
    own = canvases(config.pipeline)[:2]
    if config.pipeline.eval_canvas == "tight":
        return "Detector pads each image as little as possible, so its scores and boxes differ"
    if list(chosen) == own:
        return ""
    landscape, portrait = (f"{height}x{width}" for height, width in own)
    return (
        f"Detector uses {landscape} for landscape images and {portrait} for portrait images, so "
        f"its scores and boxes differ; --canvas={landscape} gives those of landscape images"
    )


def largest_of(canvases: Sequence[Size]) -> Size:
    """The smallest canvas that holds each of them."""
    return max(height for height, _ in canvases), max(width for _, width in canvases)


def program_arguments() -> dict[str, jax.ShapeDtypeStruct]:
    """The inputs of the program by name; batch size, height and width stay open."""
    batch, height, width = export.symbolic_shape("batch, height, width")
    return {
        "images": jax.ShapeDtypeStruct((batch, height, width, 3), jnp.uint8),
        "sizes": jax.ShapeDtypeStruct((batch, 2), jnp.int32),
    }


def exported_model(trained: Trained) -> RetinaNet:
    """Builds the network without model.remat, which gradients need and ONNX cannot express."""
    settings = dataclasses.replace(trained.config.model, remat="none")
    anchors = trained.config.anchors.anchors_per_location
    return build_model(settings, trained.categories.num_classes, anchors)


def make_program(trained: Trained, canvases: Sequence[Size]) -> Program:
    """Returns a function from (images uint8 [b h w 3], sizes int32 [b 2]) to detections.

    Each image is in the top left corner of its row of `images`; `sizes` holds heights and widths.
    Images are resized as by `Detector` and put into the first canvas that holds them; where none
    does, they are made smaller. The weights are constants of the function; b, h and w may be
    symbolic.

    On a CPU each image passes the network alone, as in the Detector: as fast, and equal to the last
    bit. Elsewhere the batch passes as a whole, in the first canvas that holds all images,
    which may be the smallest one that holds each canvas.

    Returns:
        A function that returns 'boxes' [b d 4] (xyxy in pixels of the images), 'scores' [b d],
        'labels' [b d] and 'valid' [b d]: see core/postprocess.py::Detections.
    """
    config = trained.config
    model = exported_model(trained)
    largest = largest_of(canvases)

    def detect(images, sizes):
        # Behind a barrier, like arguments: the compiler would evaluate what depends on constants
        # alone, with other rounding than the device.
        variables = jax.lax.optimization_barrier(trained.variables)

        def within(canvas, images, sizes, fitted):
            resized = resize(images, sizes, fitted, canvas, config.pipeline.eval_resizing)
            fitted, sizes = fitted.astype(jnp.float32), sizes.astype(jnp.float32)
            return predict(variables, resized, fitted, sizes, model=model, config=config)

        def within_first(canvases, *arrays):
            if len(canvases) == 1:
                return within(canvases[0], *arrays)
            holds = [jnp.all(arrays[-1] <= np.array(canvas)) for canvas in canvases]
            branches = [functools.partial(within, canvas) for canvas in canvases]
            return jax.lax.switch(jnp.argmax(jnp.stack(holds)), branches, *arrays)

        def alone(image):
            found = within_first(canvases, *(array[None] for array in image))
            return jax.tree.map(lambda array: array[0], found)

        found = jax.lax.platform_dependent(
            images,
            sizes,
            fitted_sizes(sizes, largest, config.pipeline),
            cpu=lambda *arrays: jax.lax.map(alone, arrays),
            default=functools.partial(within_first, list(dict.fromkeys([*canvases, largest]))),
        )
        return found._asdict()

    return detect


def describe_program(trained: Trained, canvases: Sequence[Size], source: str) -> dict[str, Any]:
    """Returns the metadata of the file, for JSON: classes, arrays, sizes, conventions."""
    config, categories = trained.config, trained.categories
    rows = config.postprocess.max_detections
    classes = zip(categories.names, categories.ids, strict=True)
    return {
        "made_by": f"retinanet_jax {importlib.metadata.version('retinanet_jax')}",
        "jax": jax.__version__,
        "model": source,
        "backbone": config.model.backbone,
        "classes": [
            {"label": label, "name": name, "category_id": category_id}
            for label, (name, category_id) in enumerate(classes)
        ],
        "inputs": {
            "images": "uint8 [batch, height, width, 3]: RGB, each image in the top left corner",
            "sizes": "int32 [batch, 2]: height and width of each image in pixels",
        },
        "outputs": {
            "boxes": f"float32 [batch, {rows}, 4]: x1, y1, x2, y2 in pixels of the image",
            "scores": f"float32 [batch, {rows}]: descending, 0 for rows without a detection",
            "labels": f"int32 [batch, {rows}]: index into classes, -1 for rows without a detection",
            "valid": f"bool [batch, {rows}]: True for rows with a detection, which come first",
        },
        "canvases": [list(canvas) for canvas in canvases],
        "min_side": config.pipeline.min_side,
        "max_side": config.pipeline.max_side,
        "resizing": config.pipeline.eval_resizing,
        **{
            section: dataclasses.asdict(getattr(config, section))
            for section in ("pixels", "anchors", "postprocess")
        },
    }
