"""From a batch of images to detections with random weights, compared with torchvision."""

from benchmarks import network
from benchmarks.rows import Row


def add_arguments(parser) -> None:
    network.add_arguments(parser, "640x1")


def run(arguments) -> list[Row]:
    return network.contest("infer", arguments)
