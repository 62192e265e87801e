"""All measurements on a TPU in one run: the network, loss, post-processing and NMS on one chip.

As gpu, with batches for 16 GiB of memory, and without peers: PyTorch does not run there, and a
second process cannot use the chip. Beside each measurement is what the compiler planned.
"""

from benchmarks import gpu
from benchmarks.rows import Row

CASES = "800x1344x8,512x512x8"


def add_arguments(parser) -> None:
    gpu.add_arguments(parser)
    parser.set_defaults(cases=CASES, remat_cases="800x1344x16", peers="", only_ours=True)


def run(arguments) -> list[Row]:
    return gpu.run(arguments)
