"""One training step with frozen stem, res2 and norms, compared with torchvision."""

from benchmarks import network
from benchmarks.rows import Row


def add_arguments(parser) -> None:
    network.add_arguments(parser, "320x4,640x2")


def run(arguments) -> list[Row]:
    return network.contest("train", arguments)
