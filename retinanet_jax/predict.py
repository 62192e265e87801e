"""From images to detections: the compiled predict function, and the Detector around it."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Float32, UInt8

from retinanet_jax.anchors import anchors_for_image
from retinanet_jax.checkpoint import Checkpoints
from retinanet_jax.config import Config, from_json
from retinanet_jax.data.batch import Batch, Example
from retinanet_jax.data.images import decode, read_file
from retinanet_jax.data.pipeline import eval_batches
from retinanet_jax.data.records import Categories
from retinanet_jax.data.report import DataError
from retinanet_jax.detections import Detections, detect, to_original
from retinanet_jax.models import build_model
from retinanet_jax.models.layers import ArrayLike, normalize
from retinanet_jax.weights import WeightsError, load_checkpoint

Image = str | Path | np.ndarray
PredictFn = Callable[[Any, Batch], Detections]


def predict(
    variables: Any,
    images: UInt8[ArrayLike, "b h w 3"] | Float32[ArrayLike, "b h w 3"],
    image_sizes: Float[ArrayLike, "b 2"],
    original_sizes: Float[ArrayLike, "b 2"],
    *,
    model: nn.Module,
    config: Config,
) -> Detections:
    """Detections [b d] in pixels of the original images, with a validity mask.

    Args:
        variables: 'params' and 'batch_stats' of the model.
        images: RGB, uint8 (float32 after torchvision's resizing), each picture in the top left
            corner of its canvas.
        image_sizes: height and width of each picture inside its canvas, pixels.
        original_sizes: height and width of each picture as it was stored, pixels.
        model: from `build_model`.
        config: sections pixels, anchors and postprocess are read.
    """
    anchors = anchors_for_image(images.shape[1:3], config.anchors)
    inputs = normalize(images, config.pixels, image_sizes)
    class_logits, box_deltas = model.apply(variables, inputs, train=False)

    def one_image(class_logits, box_deltas, image_size, original_size):
        found = detect(class_logits, box_deltas, anchors, image_size, config.postprocess)
        return to_original(found, image_size, original_size)

    return jax.vmap(one_image)(class_logits, box_deltas, image_sizes, original_sizes)


def make_predict_fn(model: nn.Module, config: Config) -> PredictFn:
    """`predict` compiled, as a function of (variables, batch); one compilation per canvas."""
    compiled = jax.jit(functools.partial(predict, model=model, config=config))

    def predict_fn(variables: Any, batch: Batch) -> Detections:
        return compiled(variables, batch.images, batch.image_sizes, batch.original_sizes)

    predict_fn.compiled = compiled
    return predict_fn


def describe(checkpoints: Checkpoints, step: int | None = None) -> tuple[Config, Categories]:
    """The configuration and the classes that a checkpoint was trained with."""
    metadata = checkpoints.read_metadata(step)
    categories = Categories(tuple(metadata["names"]), tuple(metadata["ids"]))
    return from_json(metadata["config"]), categories


def read_variables(checkpoints: Checkpoints, step: int | None = None) -> dict[str, Any]:
    """The variables to predict with: the moving average of the weights where one was kept."""
    state = checkpoints.read_part(("params", "batch_stats", "average"), step)
    return state["average"] or {"params": state["params"], "batch_stats": state["batch_stats"]}


class Pictures:
    """Images without annotations as a source for the pipeline; an image's id is its index."""

    name = "images"

    def __init__(self, images: Sequence[Image]):
        self._images = [_read(image) for image in images]
        self.source = self

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        none = (np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0))
        return Example(self._images[index], *none, image_id=index)

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._images[index].shape[:2]


def _read(image: Image) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return decode(read_file(Path(image)), str(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"is {image.dtype} of shape {image.shape}"
        raise DataError("array", "image", "", what, "give uint8 RGB of shape (height, width, 3)")
    return image


class Detector:
    """A trained network, ready to be called on images.

    >>> detector = Detector.from_checkpoint("runs/shapes")          # doctest: +SKIP
    >>> detections = detector("photo.jpg")                          # doctest: +SKIP
    >>> [detector.categories.names[label] for label in detections.labels]  # doctest: +SKIP

    Attributes:
        batch_size: images at a time of a sequence.
        config: of the run that trained it.
        categories: class names and category ids, by label.
    """

    def __init__(self, variables: Any, config: Config, categories: Categories):
        self.config, self.categories, self.batch_size = config, categories, 8
        self._variables = jax.device_put(variables)
        model = build_model(
            config.model, categories.num_classes, config.anchors.anchors_per_location
        )
        self._predict_fn = make_predict_fn(model, config)

    @classmethod
    def from_checkpoint(cls, location: str | Path, step: int | None = None) -> "Detector":
        """The network of a run, or a public one with the conventions of its project.

        Args:
            location: the workdir of a training; or a RetinaNet of torchvision, detectron2 or
                MMDetection as path, https URL or hf://owner/name/file (see weights.load_checkpoint,
                which takes more options: `Detector(*load_checkpoint(location)[:3])`).
            step: of the workdir's checkpoints; the latest by default.

        Raises:
            CheckpointError: the workdir has no checkpoint.
            WeightsError: there is no such file or workdir, or the file is no such RetinaNet.
        """
        if not Path(location).is_dir():
            loaded = load_checkpoint(location)
            if loaded.categories is None:
                raise WeightsError(
                    f"{location}: is a backbone without heads and detects nothing; train a "
                    "detector from it by config.model.pretrained"
                )
            return cls(*loaded[:3])
        checkpoints = Checkpoints(Path(location) / "checkpoints")
        config, categories = describe(checkpoints, step)
        return cls(read_variables(checkpoints, step), config, categories)

    def __call__(self, images: Image | Sequence[Image]) -> Detections | list[Detections]:
        """Detections of one image, or a list of them for a sequence of images.

        Args:
            images: path, or uint8 RGB array [h, w, 3], of any size; or a sequence of these.

        Returns:
            The valid detections as numpy arrays by falling score, boxes in pixels of the image.

        Raises:
            DataError: a file that is missing or no image, or an array of another kind.
        """
        if isinstance(images, str | Path | np.ndarray):
            return self([images])[0]
        if not images:
            return []
        dataset = Pictures(images)
        found: list[Detections] = [None] * len(images)
        batches = eval_batches(
            dataset, batch_size=min(len(images), self.batch_size), settings=self.config.pipeline
        )
        for host in batches:
            batch = jax.device_get(self._predict_fn(self._variables, host.batch))
            for row in np.flatnonzero(host.batch.valid):
                valid = batch.valid[row]
                found[host.image_ids[row]] = Detections(*(x[row][valid] for x in batch))
        return found
