"""The device mesh: one axis, `data`, over which batches and, optionally, the state are split."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
# Elements; smaller arrays stay whole, since dividing them saves less than their collectives cost.
# All norms and biases of a ResNet-50 are smaller, 0.15% of its parameters together.
SMALLEST_DIVIDED = 4096


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the state of a run is placed on its devices.

    Attributes:
        shard_state: False keeps parameters, optimizer state and moving average whole on each
            device. True divides them over the devices (ZeRO, arXiv 1910.02054): less memory, for
            one more all-gather of the parameters per step. Results are equal up to rounding, and
            checkpoints do not depend on it.
    """

    shard_state: bool = False


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices of all processes, or of the given ones.

    The axis is `Auto`: the compiler places the collectives. JAX's default, explicit axes, rejects
    the reshapes in the heads.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The same array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_data(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def state_sharding(state: Any, mesh: Mesh | AbstractMesh, config: MeshConfig) -> Any:
    """The sharding of each array of a state (arrays or ShapeDtypeStructs), as a tree like it.

    With config.shard_state, an array is split along its largest axis that is divisible by the
    number of devices. Arrays without such an axis, or below SMALLEST_DIVIDED elements, stay whole.
    """

    def one(x: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(x.shape) if length % mesh.size == 0]
        if not (config.shard_state and axes) or math.prod(x.shape) < SMALLEST_DIVIDED:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, DATA_AXIS))

    return jax.tree.map(one, state)


@functools.partial(jax.jit, static_argnames="mesh")
def gathered(tree: Any, mesh: Mesh) -> Any:
    """Arrays on the devices of a mesh, split or not, replicated on each of them."""
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def map_images(function: Callable, mesh: Mesh | None = None) -> Callable:
    """`jax.vmap` over the images of a batch; each device applies it to its own images."""
    return on_own_rows(jax.vmap(function), mesh)


def on_own_rows(function: Callable, mesh: Mesh | None, whole: int = 0) -> Callable:
    """A function of batches that each device applies to its own rows, without communication.

    The compiler might divide such a function in other ways, with collectives inside its loops.
    Without a mesh, and for a batch that does not divide over it, the function is unchanged.

    Args:
        function: function whose rows must not depend on each other.
        mesh: mesh of the devices.
        whole: number of leading arguments that each device gets whole, such as parameters.
    """
    if mesh is None or mesh.size == 1:
        return function
    rows = PartitionSpec(DATA_AXIS)

    def call(*arguments: Any) -> Any:
        if jax.tree.leaves(arguments[whole:])[0].shape[0] % mesh.size:
            return function(*arguments)
        specs = (PartitionSpec(),) * whole + (rows,) * (len(arguments) - whole)
        divided = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False
        )
        return divided(*arguments)

    return call


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """Sends this process's rows of a batch (numpy leaves) to the devices, as global arrays.

    The transfer is asynchronous: the call returns before the bytes have arrived.
    """
    sharding = split_over_data(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def to_each_device(tree: Any, mesh: Mesh) -> Any:
    """Replicates arrays that every process has on each device."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def prefetch_to_device(
    batches: Iterator[Any], arrays: Callable[[Any], Any], mesh: Mesh
) -> Iterator[Any]:
    """`to_devices(arrays(batch), mesh)` of each batch, one batch ahead, in a thread.

    The caller waits only if the next batch is not ready: reading it from `batches` and copying it
    take none of the caller's time.
    """

    def send() -> Any:
        batch = next(batches, None)
        return None if batch is None else to_devices(arrays(batch), mesh)

    with ThreadPoolExecutor(1, thread_name_prefix="to-devices") as thread:
        pending = thread.submit(send)
        while (sent := pending.result()) is not None:
            pending = thread.submit(send)
            yield sent


def for_this_process(settings: Any) -> Any:
    """Pipeline settings (a dataclass) with the index and the number of processes filled in."""
    return dataclasses.replace(
        settings, process_index=jax.process_index(), process_count=jax.process_count()
    )


def fetch(tree: Any) -> Any:
    """Copies arrays, also those split over several hosts, to numpy on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def whole_on_first(tree: Any) -> Any:
    """Copies arrays, also those split over several hosts, to numpy on process 0.

    All processes call it together; the others get None.
    """
    split = [x for x in jax.tree.leaves(tree) if not x.is_fully_replicated]
    if split:
        tree = gathered(tree, split[0].sharding.mesh)
    if jax.process_index() > 0:
        return None
    return jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))
