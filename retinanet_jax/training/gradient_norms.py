"""The norms of a step's gradients, by module of the network."""

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from retinanet_jax.training.optimizer import Params


def gradients_and_norms(
    gradients: dict[str, Params], mesh: Mesh, *, shard_state: bool
) -> tuple[dict[str, Params], dict[str, jax.Array]]:
    """Returns the gradients, for the update, and their norm for each module.

    On GPUs, the gradients become parts of one vector. XLA then needs two kernels for the norm of a
    module and few kernels for the update of all parameters. For separate arrays, it needs two
    kernels for the norm of each parameter, one for its update, and two copies of the results. A
    state that is divided over the devices has no such vector.

    Args:
        gradients: gradients by module, float32.
        mesh: mesh of the devices that compute them.
        shard_state: see MeshConfig.
    """
    if shard_state or mesh.devices.flat[0].platform != "gpu":
        return gradients, {name: optax.tree.norm(part) for name, part in gradients.items()}
    vector, split = ravel_pytree(gradients)
    gradients = split(jax.lax.optimization_barrier(vector))
    vectors = {name: ravel_pytree(part)[0] for name, part in gradients.items()}
    return gradients, {name: jnp.linalg.norm(part) for name, part in vectors.items()}
