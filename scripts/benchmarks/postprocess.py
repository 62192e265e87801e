"""From the heads' outputs of one image to 100 detections, compared with torchvision.

201,600 anchors at 800 x 1344; both sides are divided by --shrink.
"""

from benchmarks import inputs, ops
from benchmarks.rows import Row


def add_arguments(parser) -> None:
    ops.add_arguments(parser)
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--classes", type=int, default=80)


def run(arguments) -> list[Row]:
    sizes = arguments.shrink, arguments.classes
    anchors = sum(inputs.anchors_per_level(arguments.shrink))
    label = f"post-processing, {anchors:,} x {arguments.classes} -> 100"
    return ops.contest("postprocess", sizes, label, ("torchvision",), arguments)
