"""The device mesh: one axis, `data`; parameters replicated, batches split over it."""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from retinanet_jax.config import ConfigError

DATA_AXIS = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices of all processes, or of the given ones.

    The axis is `Auto`: the compiler places the collectives. (JAX's default, explicit axes, would
    refuse the reshapes of the heads.)
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_data(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """Puts this process's rows of a batch (numpy leaves) on the devices, as one global array each.

    The transfer is asynchronous: the call returns before the bytes have arrived.
    """
    sharding = split_over_data(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def to_each_device(tree: Any, mesh: Mesh) -> Any:
    """Puts values that every process has (arrays) whole on each device."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def sent_ahead(batches: Iterator[Any], arrays: Callable[[Any], Any], mesh: Mesh) -> Iterator[Any]:
    """`to_devices(arrays(batch), mesh)` of each batch, the next one always under way in a thread.

    Whoever iterates only waits where a batch is not there yet: fetching it from `batches`, and
    copying where the transfer copies, take none of that thread's time.
    """

    def send() -> Any:
        batch = next(batches, None)
        return None if batch is None else to_devices(arrays(batch), mesh)

    with ThreadPoolExecutor(1, thread_name_prefix="to-devices") as thread:
        coming = thread.submit(send)
        while (sent := coming.result()) is not None:
            coming = thread.submit(send)
            yield sent


def check_batch_size(batch_size: int, mesh: Mesh | AbstractMesh, field: str) -> None:
    """Raises ConfigError where a batch cannot be divided over the devices."""
    devices = mesh.size
    if batch_size % devices:
        nearest = max(1, round(batch_size / devices)) * devices
        raise ConfigError(
            f"{field}: {batch_size} images cannot be divided over {devices} devices; "
            f"write a multiple of {devices}, such as {nearest}"
        )


def for_this_process(settings: Any) -> Any:
    """Settings of the pipeline (a dataclass) with this process's share of each batch filled in."""
    return dataclasses.replace(
        settings, process_index=jax.process_index(), process_count=jax.process_count()
    )


def fetch(tree: Any) -> Any:
    """Copies arrays, also those spread over several hosts, to numpy on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))
