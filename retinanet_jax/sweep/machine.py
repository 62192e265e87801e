"""The GPUs and CPU cores of this machine, divided among worker processes."""

import glob
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.cores import available_cores


class Share(NamedTuple):
    """What a worker has of the machine; an empty field is not divided.

    gpus: as CUDA_VISIBLE_DEVICES names them.
    cores: numbers of CPU cores.
    """

    gpus: Sequence[str] = ()
    cores: Sequence[int] = ()

    def take(self) -> None:
        """Binds this process to its share. Call it before JAX makes its devices and threads."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        if self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)


def share_machine(gpus: Sequence[str], cores: Sequence[int], count: int) -> list[Share]:
    """Equal shares for `count` workers: of the GPUs, or of the cores if there are no GPUs.

    Raises:
        ConfigError: there are fewer GPUs or cores than workers.
    """
    kind, whole = ("GPUs", gpus) if gpus else ("cores", cores)
    if whole and len(whole) < count:
        raise ConfigError(
            f"--workers={count}: the machine has {len(whole)} {kind}; set at most that many"
        )
    parts = divide(whole, count)
    return [Share(gpus=part) if gpus else Share(cores=part) for part in parts]


def divide(items: Sequence, count: int) -> list[Sequence]:
    """Consecutive parts of `items`; their lengths differ by at most 1."""
    bounds = [len(items) * i // count for i in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(bounds)]


def visible_gpus() -> list[str]:
    """NVIDIA GPUs, found without JAX, which would reserve their memory."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(len(glob.glob("/dev/nvidia[0-9]*")))]
    # CUDA ignores all names from the first invalid one on, usually -1.
    names = (name.strip() for name in chosen.split(","))
    return list(itertools.takewhile(lambda n: n.isdecimal() or n[:4] in ("GPU-", "MIG-"), names))


def own_cores() -> list[int]:
    """Cores that this process may use; none if the system cannot bind a process to cores."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[: available_cores()]
