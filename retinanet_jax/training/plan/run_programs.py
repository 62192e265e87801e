"""Lowers the programs of a run for a mesh of devices or of described chips; nothing runs."""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.pipeline.augmentation_config import with_largest_scale
from retinanet_jax.data.pipeline.batch import Batch, padding_batch
from retinanet_jax.data.pipeline.canvas import canvases
from retinanet_jax.data.pipeline.order import TrainOrder, eval_order
from retinanet_jax.inference.predict import make_predict_fn
from retinanet_jax.runtime.mesh import replicated, split_over_data
from retinanet_jax.training.setup import compile_functions
from retinanet_jax.training.step import focal_params

MODES = ("train", "predict")


def run_canvases(
    config: Config, mode: str, dataset: Dataset | None = None
) -> list[tuple[int, int]]:
    """Returns the (height, width) of the batches of a run, the largest last.

    Args:
        config: configuration of the run.
        mode: 'train' or 'predict'.
        dataset: dataset of this mode, which decides if a run has only one canvas; None: all
            canvases that the run may have.
    """
    settings, trains = config.pipeline, mode == "train"
    if trains:
        settings = with_largest_scale(settings, config.augmentation)
    if dataset is None or not has_one_canvas(config, mode):
        return canvases(settings)
    if trains:
        return [TrainOrder(dataset.source, 1, config.seed, settings)(0).canvas]
    return [eval_order(dataset.source, 1, settings)[0].canvas]


def has_one_canvas(config: Config, mode: str) -> bool:
    """Returns whether all batches of a mode have one canvas, the smallest that holds all images.

    Evaluations in tiles have the canvases of their tiles.
    """
    if mode == "train":
        return config.pipeline.train_canvas == "one"
    return config.pipeline.eval_canvas == "one" and config.data.tile is None


def lower_program(
    mode: str,
    config: Config,
    num_classes: int,
    mesh: Mesh,
    canvas: tuple[int, int],
    batch_size: int,
) -> jax.stages.Lowered:
    """Lowers the train step or the predict function of a run.

    Args:
        mode: 'train' or 'predict'.
        config: configuration of the run.
        num_classes: number of classes of the dataset.
        mesh: mesh of devices, or of described chips.
        canvas: height and width of the images, pixels.
        batch_size: images over all devices.
    """
    train = dataclasses.replace(config.train, batch_size=batch_size)
    config = dataclasses.replace(config, train=train)
    functions = compile_functions(config, num_classes, mesh)
    batch = _batch_shapes(mode, config, mesh, canvas, batch_size)
    if mode == "train":
        scalars = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)),
            focal_params(config.loss),
        )
        return functions.step_fn.lower(functions.state_shapes, batch, scalars, np.float32(0))
    model = build_model(config.model, num_classes, config.anchors.anchors_per_location)
    predict = make_predict_fn(model, config, mesh).compiled
    sizes = batch.image_sizes, batch.original_sizes
    return predict.lower(functions.state_shapes.variables(), batch.images, *sizes)


def _batch_shapes(
    mode: str, config: Config, mesh: Mesh, canvas: tuple[int, int], batch_size: int
) -> Batch:
    """Returns a batch as ShapeDtypeStructs, divided over the mesh."""
    augmentation = config.augmentation
    marks = {"flips": augmentation.flip, "colors": augmentation.changes_colors()}
    marks = marks if mode == "train" else {}
    # One row is made: a batch of all chips may be larger than this machine's memory.
    row = padding_batch(canvas, config.pipeline.max_boxes, 1, **marks).batch
    rows = split_over_data(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=rows), row
    )
