"""Focal loss, value and gradient, compared with torchvision and optax on one-hot targets."""

from benchmarks import ops
from benchmarks.rows import Row


def add_arguments(parser) -> None:
    ops.add_arguments(parser)
    parser.add_argument("--anchors", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=80)


def run(arguments) -> list[Row]:
    sizes = arguments.anchors, arguments.classes
    label = f"loss and gradient, {sizes[0]:,} x {sizes[1]}"
    return ops.contest("loss", sizes, label, ("torchvision", "optax"), arguments)
