"""scripts/compiler_plan.py: plans of matching, loss and post-processing for chips elsewhere.

They need libtpu or JAX's CUDA packages, and are skipped without.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from retinanet_jax.config.sections import OptimizerConfig
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.mesh import replicated
from retinanet_jax.training.gradient_norms import gradients_and_norms
from retinanet_jax.training.optimizer import make_optimizer
from retinanet_jax.training.plan.chips import described_mesh
from retinanet_jax.training.plan.program_plan import plan_program

SCRIPTS = Path(__file__).parent.parent / "scripts"
CHIPS = "v5e:2x4", "h200:8"
MIB = 2**20


@pytest.fixture
def plans(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compiler_plan

    return compiler_plan


@pytest.fixture(params=CHIPS)
def chip(request):
    return described(request.param)


@pytest.fixture
def tpu():
    return described(CHIPS[0])


def described(chip):
    """Chip and mesh; skips the test where the compiler is not installed."""
    try:
        return described_mesh(chip)
    except ConfigError as error:
        pytest.skip(str(error))


def test_matching_needs_no_collective_and_less_than_80_mib(plans, chip):
    """At 800x1344 with 100 boxes, where one matrix of overlaps is 77 MiB."""
    chip, mesh = chip
    function, shapes, pairs = plans.matching(2 * mesh.size, mesh)
    found, moved = plans.plan(function, shapes, chip, mesh)
    assert not found.collectives
    if chip.platform == "tpu":
        # Written once and read twice they are 12 bytes a pair, and 4 more for results and anchors.
        assert found.temporary <= 80 * MIB and moved <= 18 * pairs
    else:
        assert found.temporary <= 2 * 80 * MIB


@pytest.mark.extended
def test_the_loss_has_no_copy_of_the_logits_on_a_tpu(plans, tpu, monkeypatch):
    """Value and gradient read and write 4 bytes for a logit and one for its state, and padding: 15
    at this size. A copy of the logits adds 8."""
    monkeypatch.setattr(plans, "CANVAS", (200, 336))
    chip, mesh = tpu
    function, shapes, logits = plans.loss(8 * mesh.size, mesh)
    found, moved = plans.plan(function, shapes, chip, mesh)
    assert found.temporary <= logits
    assert moved <= 20 * logits
    # The sum over the devices of the loss and of the number of positives.
    assert found.collectives.keys() <= {"all-reduce"} and found.collectives.total() <= 2


def test_a_gpu_updates_parameters_in_few_kernels():
    """Of 24 parameters: their gradients transposed, the vector, its norm, and 24 updates. From
    separate arrays XLA plans 97."""
    chip, mesh = described("h200:1")
    shape = jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32, sharding=replicated(mesh))
    params = {"backbone": [shape] * 24}
    trainable = jax.tree.map(lambda _: True, params)
    optimizer = make_optimizer(OptimizerConfig(), trainable)

    def step(params, state, gradients):
        gradients = jax.tree.map(lambda g: g.transpose(1, 2, 3, 0), gradients)
        gradients, norms = gradients_and_norms(gradients, mesh, shard_state=False)
        updates, state = optimizer.update(gradients, state, params, learning_rate=0.01)
        return optax.apply_updates(params, updates), state, norms

    state = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=replicated(mesh)),
        jax.eval_shape(optimizer.init, params),
    )
    stored = jax.ShapeDtypeStruct((128, 3, 3, 64), jnp.float32, sharding=replicated(mesh))
    gradients = {"backbone": [stored] * 24}
    traced = jax.jit(step, donate_argnums=(0, 1)).trace(params, state, gradients)
    plan = plan_program(traced.lower(lowering_platforms=("cuda",)), chip)
    assert plan.kernels <= 60


@pytest.mark.slow
def test_post_processing_needs_no_collective(plans, chip, monkeypatch):
    monkeypatch.setattr(plans, "CANVAS", (200, 336))
    chip, mesh = chip
    function, shapes, _ = plans.postprocess(mesh.size, mesh)
    assert not plans.plan(function, shapes, chip, mesh).program.collectives
