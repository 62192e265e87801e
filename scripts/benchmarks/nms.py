"""NMS alone: the first outputs of 1,000 and 5,000 boxes, compared with NumPy and torchvision."""

from benchmarks import ops
from benchmarks.rows import Row


def add_arguments(parser) -> None:
    ops.add_arguments(parser)
    parser.add_argument("--boxes", default="1000,5000", help="how many, one after the other")
    parser.add_argument("--outputs", type=int, default=100)


def run(arguments) -> list[Row]:
    outputs, peers = arguments.outputs, ("numpy", "torchvision")
    return [
        row
        for boxes in map(int, arguments.boxes.split(","))
        for row in ops.contest(
            "nms", (boxes, outputs), f"NMS, {boxes:,} -> {outputs:,} boxes", peers, arguments
        )
    ]
