"""State divided over devices: the same run, less memory, and checkpoints that open on any mesh."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from quick import xla_flags
from small import small_config

from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.config.settings import from_config_dict
from retinanet_jax.core.cpu.convolution import LEAST_CHANNELS
from retinanet_jax.core.retinanet import build_model, trainable_mask
from retinanet_jax.runtime.mesh import MeshConfig, state_sharding
from retinanet_jax.training.optimizer import make_optimizer
from retinanet_jax.training.train_state import create_state

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=[pytest.param("compiled", marks=pytest.mark.extended)])
def found(tmp_path_factory) -> dict:
    """Compiled functions and restored checkpoints on eight simulated devices."""
    return results_of("compiled", tmp_path_factory)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> dict:
    """Whole runs on eight simulated devices."""
    return results_of("runs", tmp_path_factory)


def results_of(part: str, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("sharded")
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": xla_flags(devices=8),
        "PYTHONPATH": f"{HERE.parent}:{HERE}",
    }
    command = [sys.executable, str(HERE / "sharded_runs.py"), str(folder), part]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())


def shapes_of_state(config, num_classes: int):
    """The state of a run as shapes: nothing is computed."""
    model = build_model(config.model, num_classes, config.anchors.anchors_per_location)
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    trainable = trainable_mask(variables["params"], config.model)
    optimizer = make_optimizer(config.optimizer, trainable)
    first_state = partial(create_state, optimizer=optimizer, keep_average=False)
    return jax.eval_shape(first_state, variables)


def bytes_of_a_device(state, devices: int, shard_state: bool) -> int:
    """Of parameters and optimizer state."""
    mesh = jax.sharding.AbstractMesh((devices,), ("data",))
    tree = (state.params, state.opt_state)
    sharding = state_sharding(tree, mesh, MeshConfig(shard_state=shard_state))
    parts = jax.tree.map(
        lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, tree, sharding
    )
    return sum(jax.tree.leaves(parts))


def test_eight_devices_hold_an_eighth_each(found):
    assert found["devices"] == 8
    assert found["divided"]["bytes"] < 0.2 * found["whole"]["bytes"]
    state = shapes_of_state(small_config(), num_classes=5)
    for name, shard_state in (("whole", False), ("divided", True)):
        assert bytes_of_a_device(state, 8, shard_state) == found[name]["bytes"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_eight_devices_hold_an_eighth_each_of_a_resnet_50(optimizer):
    tree = load_experiment(str(HERE.parent / "experiments/coco.py"))
    tree.model.pretrained = "resnet50.safetensors"  # named, not read: stem and res2 are frozen
    tree.optimizer.name = optimizer
    state = shapes_of_state(from_config_dict(tree), num_classes=80)
    whole = bytes_of_a_device(state, 8, shard_state=False)
    assert whole > 2 * 4 * 37e6  # parameters and at least as much optimizer state
    assert bytes_of_a_device(state, 8, shard_state=True) < 0.13 * whole


def test_the_largest_axis_that_the_devices_divide_is_divided():
    mesh = jax.sharding.AbstractMesh((8,), ("data",))
    for shape, axis in (
        ((3, 3, 64, 256), 3),
        ((1, 1, 2048, 512), 2),
        ((3, 3, 256, 36), 2),  # 36 anchors' deltas are not divisible by 8
        ((64, 64), 0),
        ((7, 7, 3, 1001), None),
        ((64,), None),  # too small
        ((), None),
    ):
        array = jax.ShapeDtypeStruct(shape, jnp.float32)
        expected = () if axis is None else (None,) * axis + ("data",)
        assert tuple(state_sharding(array, mesh, MeshConfig(shard_state=True)).spec) == expected
        assert tuple(state_sharding(array, mesh, MeshConfig()).spec) == ()


@pytest.mark.slow
def test_the_same_run_whole_and_divided(compared):
    whole, divided = compared["runs"]["whole"], compared["runs"]["divided"]
    assert divided["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    assert len(set(whole["losses"])) == 4
    assert divided["examples"] == whole["examples"]
    # Four updates carry rounding as far as from eight devices to two: see the test below.
    assert compared["differences"]["divided"] < 1e-4
    count, largest_difference_of_scores = compared["detections"]
    assert count == 5 * 100 and largest_difference_of_scores < 1e-4


def test_a_checkpoint_opens_on_any_number_of_devices_whole_or_divided(found):
    assert found["wrongly_restored"] == []


@pytest.mark.slow
def test_stopped_and_continued_on_the_same_devices_to_the_last_bit(compared):
    assert compared["stopped_is_straight"]
    assert compared["runs"]["stopped"]["losses"] == compared["runs"]["divided"]["losses"]


@pytest.mark.slow
def test_stopped_and_continued_on_other_devices_with_the_same_examples(compared):
    """Begun on eight with the state divided, continued on two with the state whole."""
    whole, continued = compared["runs"]["whole"], compared["runs"]["on_2"]
    assert continued["examples"] == whole["examples"][2:]
    assert continued["losses"] == pytest.approx(whole["losses"], rel=1e-4)
    assert compared["differences"]["on_2"] < 1e-3


def expected_collectives(shard_state: bool) -> Counter:
    """Why each collective of the step is there; (kind, dtype, numbers).

    Sums over the devices (all-reduce) of
    - the gradient of each parameter. XLA sums where a gradient arises, so that those of the heads,
      which all pyramid levels share, come once for each level. That is the CPU's compiler: the
      GPU's adds them first (its pass AllReduceReassociate), and it turns the sum of a divided
      array into a reduce-scatter (ReduceScatterCreator);
    - mean and variance of a live batch norm, one after the other since the variance is taken around
      the mean; their gradient. Scale and bias are parameters, whose gradients the norm's own needs;
    - four scalars: class loss, box loss, the number of positives, and, as a whole number, what the
      loss divides by.

    On the CPU, moreover, Winograd's convolution sums the gradient of its kernel place by place, a
    ninth of the kernel's numbers at a time in a loop of 16; and forwards and backwards it asks for
    one number of its input, which one device has (see winograd_places.zero_after).

    With divided parameters, besides:
    - an all-gather of each, once for all its uses, forwards and backwards;
    - a sum of the squares of each for the norms of the gradients.

    Nothing gathers the batch, and nothing moves activations between devices.
    """
    config = small_config()
    state = shapes_of_state(config, num_classes=5)
    mesh = jax.sharding.AbstractMesh((8,), ("data",))
    sharding = state_sharding(state.params, mesh, MeshConfig(shard_state=shard_state))
    levels = config.model.max_level - min(config.model.backbone_levels) + 1
    expected = Counter()
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    for (path, x), placed in zip(leaves, jax.tree.leaves(sharding), strict=True):
        shared = path[0].key in ("class_head", "box_head")
        # In the small network, those with as many outputs as inputs are of stride 1.
        by_winograd = x.shape[:2] == (3, 3) and x.shape[2] == x.shape[3] >= LEAST_CHANNELS
        numbers = x.size // 9 if by_winograd else x.size
        expected["all-reduce", "f32", numbers] += levels if shared else 1
        expected["all-reduce", "f32", 1] += 2 * by_winograd
        if not placed.is_fully_replicated:
            expected["all-gather", "f32", x.size] += 1
            expected["all-reduce", "f32", 1] += 1
    for x in jax.tree.leaves(state.batch_stats):  # of each norm a mean and a variance
        expected["all-reduce", "f32", x.size] += 1.5
    expected["all-reduce", "f32", 1] += 3
    expected["all-reduce", "s32", 1] += 1
    return expected


@pytest.mark.parametrize(("name", "shard_state"), [("whole", False), ("divided", True)])
def test_no_collective_is_in_the_step_without_a_reason(found, name, shard_state):
    assert listed_collectives(found[name], "step") == expected_collectives(shard_state)


@pytest.mark.parametrize("function", ["predict", "measure"])
@pytest.mark.parametrize(("name", "shard_state"), [("whole", False), ("divided", True)])
def test_prediction_gathers_divided_parameters_and_nothing_else(found, name, shard_state, function):
    params = shapes_of_state(small_config(), num_classes=5).params
    mesh = jax.sharding.AbstractMesh((8,), ("data",))
    sharding = state_sharding(params, mesh, MeshConfig(shard_state=shard_state))
    expected = Counter(
        ("all-gather", "f32", x.size)
        for x, placed in zip(jax.tree.leaves(params), jax.tree.leaves(sharding), strict=True)
        if not placed.is_fully_replicated
    )
    assert listed_collectives(found[name], function) == expected
    assert bool(expected) == shard_state


def listed_collectives(of_state: dict, function: str) -> Counter:
    return Counter({tuple(key): count for *key, count in of_state["collectives"][function]})
