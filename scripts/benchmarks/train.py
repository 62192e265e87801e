"""One training step, stem and res2 and all norms frozen, beside torchvision's RetinaNet."""

from benchmarks import network
from benchmarks.rows import Row


def add_arguments(parser) -> None:
    network.add_arguments(parser, "320x4,640x2")


def run(arguments) -> list[Row]:
    return network.contest("train", arguments)
