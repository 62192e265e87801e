"""What XLA plans for a chip that this machine does not have: memory, traffic, collectives, cycles.

    python scripts/compiler_plan.py --chip=v5e:2x4 [matching] [loss] [postprocess]
    python scripts/compiler_plan.py --chip=h200:8

A TPU needs `pip install 'retinanet_jax[plan-tpu]'`, a GPU 'retinanet_jax[plan-gpu]'. Nothing runs:
the compilers plan for a described chip. `retinanet-jax plan` plans whole runs. The functions are
those of the training step and of prediction, for images of 800 x 1344 with 80 classes and 100
boxes, --images on each chip.

Columns: temporary memory on a chip in MiB for each image; bytes read and written, by the compiler's
count (TPU), for each pair of anchor and box (matching) or each logit (loss, postprocess; value and
gradient of the loss); the sum of the compiler's estimated cycles (TPU; a loop's body counts once);
collectives; seconds to compile.
"""

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh

from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image, feature_shapes
from retinanet_jax.core.assignment import assign_batch
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import MatchingConfig
from retinanet_jax.core.postprocess import PostprocessConfig, detect
from retinanet_jax.core.targets import Targets
from retinanet_jax.runtime.mesh import map_images, on_own_rows, split_over_data
from retinanet_jax.training.plan.chips import Chip, described_mesh, hide_devices
from retinanet_jax.training.plan.program_plan import ProgramPlan, read_plan

CANVAS, CLASSES, BOXES = (800, 1344), 80, 100


class FunctionPlan(NamedTuple):
    """The plan of a function, for one chip."""

    program: ProgramPlan
    moved: float
    """Bytes read and written by all operations; NaN where the compiler does not count them."""


def plan(function: Callable, arguments: Any, chip: Chip, mesh: Mesh) -> FunctionPlan:
    """The plan for a function of arrays whose first axis is divided over the mesh.

    Args:
      function: to compile.
      arguments: a tuple of trees of (shape, dtype).
      chip, mesh: from `described_mesh`.
    """
    specs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(*x),
        arguments,
        is_leaf=lambda x: isinstance(x, tuple) and isinstance(x[-1], type),
    )
    # Inside a program nothing forces a layout; fixed ones would add copies.
    automatic = Format(Layout.AUTO, split_over_data(mesh))
    jitted = jax.jit(function, in_shardings=automatic, out_shardings=Format(Layout.AUTO))
    start = time.perf_counter()
    compiled = jitted.lower(*specs).compile()
    seconds = time.perf_counter() - start
    counted = compiled.cost_analysis() if chip.platform == "tpu" else {}
    program = dataclasses.replace(read_plan(compiled, chip), compile_seconds=seconds)
    return FunctionPlan(program, counted.get("bytes accessed", math.nan))


def heads(batch: int) -> tuple[list, list]:
    """Shapes of the heads' outputs, as the convolutions write them."""
    grids = feature_shapes(CANVAS, AnchorConfig())
    anchors = AnchorConfig().anchors_per_location
    return tuple(
        [((batch, *grid, anchors * values), np.float32) for grid in grids]
        for values in (CLASSES, 4)
    )


def by_anchor(outputs: list, values: int) -> tuple:
    """The reshape in the heads."""
    return tuple(x.reshape(x.shape[0], -1, values) for x in outputs)


def matching(batch: int, mesh: Mesh) -> tuple[Callable, tuple, int]:
    """Function, shapes and number of pairs of an image: the loop over images counts once."""
    anchors = np.concatenate(anchors_for_image(CANVAS, AnchorConfig()))
    match = functools.partial(assign_batch, anchors, config=MatchingConfig())
    shapes = [
        ((batch, BOXES, 4), np.float32),
        ((batch, BOXES), np.int32),
        ((batch, BOXES), np.bool_),
    ]
    return on_own_rows(match, mesh), tuple(shapes), len(anchors) * BOXES


def loss(batch: int, mesh: Mesh) -> tuple[Callable, tuple, int]:
    """Function, shapes and number of logits of a chip."""
    anchors = anchors_for_image(CANVAS, AnchorConfig())
    grids = tuple(feature_shapes(CANVAS, AnchorConfig()))
    total = sum(map(len, anchors))

    def class_loss(logits, labels, deltas, boxes):
        return retinanet_loss(
            by_anchor(logits, CLASSES),
            by_anchor(deltas, 4),
            anchors,
            Targets(labels, boxes),
            jnp.ones(batch, bool),
            LossConfig(),
            grids=grids,
        ).class_loss

    logits, deltas = heads(batch)
    labels, boxes = ((batch, total), np.int32), ((batch, total, 4), np.float32)
    return (
        jax.value_and_grad(class_loss),
        (logits, labels, deltas, boxes),
        total * CLASSES * batch // mesh.size,
    )


def postprocess(batch: int, mesh: Mesh) -> tuple[Callable, tuple, int]:
    """Function, shapes and number of logits of a chip."""
    anchors = anchors_for_image(CANVAS, AnchorConfig())

    def one_image(logits, deltas, image_size):
        return detect(logits, deltas, anchors, image_size, PostprocessConfig())

    def detections(logits, deltas, image_sizes):
        outputs = by_anchor(logits, CLASSES), by_anchor(deltas, 4)
        return map_images(one_image, mesh)(*outputs, image_sizes)

    shapes = (*heads(batch), ((batch, 2), np.float32))
    return detections, shapes, sum(map(len, anchors)) * CLASSES * batch // mesh.size


FUNCTIONS = {"matching": matching, "loss": loss, "postprocess": postprocess}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="matching, loss, postprocess")
    parser.add_argument("--chip", default="v5e:2x4")
    parser.add_argument("--images", type=int, default=2, help="on each chip; default 2")
    arguments = parser.parse_args()
    hide_devices()
    chip, mesh = described_mesh(arguments.chip)
    print("| function | temporary MiB | bytes moved | cycles | collectives | compiled in |")
    print("|---|---|---|---|---|---|")
    for name in arguments.names or FUNCTIONS:
        function, shapes, count = FUNCTIONS[name](arguments.images * mesh.size, mesh)
        found, moved = plan(function, shapes, chip, mesh)
        memory = found.temporary / 2**20 / arguments.images
        print(
            f"| {name} | {memory:.1f} | {moved / count:.1f} | {found.cycles:,} ",
            f"{found.collectives.total()} | {found.compile_seconds:.0f} s |",
            sep="| ",
            flush=True,
        )


if __name__ == "__main__":
    main()
