"""Run by test_training_sharding.py with eight simulated devices.

Whole runs are saved and restored on meshes of several sizes, their state whole or divided. The
results are in FOLDER/result.json.

python sharded_runs.py FOLDER {compiled,runs}
"""

import contextlib
import functools
import hashlib
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from collectives import collectives
from small import small_batch, small_config

from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.predict import make_predict_fn
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.compilation_cache import keep_compilations
from retinanet_jax.runtime.mesh import (
    MeshConfig,
    make_mesh,
    prefetch_to_device,
    state_sharding,
    to_devices,
)
from retinanet_jax.training import loop, run, run_checkpoints
from retinanet_jax.training.evaluation import Evaluation
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.setup import make_setup

FOLDER = Path(sys.argv[1])
FIELDS = {
    "train__batch_size": 8,
    "evaluation__batch_size": 8,
    "evaluation__example_images": 0,
    "optimizer__ema_decay": 0.9,
    "postprocess__score_threshold": 0.0,
    "optimizer__base_batch_size": 8,
}
PARTS = ("params", "batch_stats", "opt_state", "average", "step")


def mesh_of(devices: int):
    return make_mesh(jax.devices()[:devices])


def bytes_of_a_device(state) -> int:
    """Of parameters and optimizer state."""
    arrays = jax.tree.leaves((state.params, state.opt_state))
    return sum(x.addressable_shards[0].data.nbytes for x in arrays)


@functools.cache
def setup_of(devices: int, shard_state: bool):
    """Compiled once for all runs on a mesh."""
    config = small_config(**FIELDS, mesh__shard_state=shard_state)
    categories = Categories(tuple("abcde"), (1, 2, 3, 4, 5))
    return make_setup(config, categories, mesh_of(devices), print)


def compiled_collectives(shard_state: bool) -> dict:
    """The collectives of the compiled functions, and a device's share of the state."""
    setup = setup_of(8, shard_state)
    batch = to_devices(small_batch(rows=8), mesh_of(8))
    variables, config = setup.state.variables(), small_config(**FIELDS)
    model = build_model(config.model, 5, config.anchors.anchors_per_location)
    predict_fn = make_predict_fn(model, config, mesh_of(8))
    images = batch.images, batch.image_sizes, batch.original_sizes
    step = setup.step_fn.lower(setup.state, batch, setup.focal, setup.schedule(0))
    predict = predict_fn.compiled.lower(variables, *images)
    measure = setup.measure_fn.compiled.lower(variables, setup.focal, batch)
    found = {
        name: [[*key, count] for key, count in collectives(lowered.compile().as_text()).items()]
        for name, lowered in (("step", step), ("predict", predict), ("measure", measure))
    }
    return {"bytes": bytes_of_a_device(setup.state), "collectives": found}


def train(name: str, devices: int, shard_state: bool, steps: int, evaluates: bool = False) -> dict:
    """A run in FOLDER/NAME, or its continuation: its losses and its examples."""
    config = small_config(**FIELDS, mesh__shard_state=shard_state, train__steps=steps)
    setup, examples = setup_of(devices, shard_state), []
    # A copy: the first step uses the state up.
    setup = setup._replace(state=jax.tree.map(jnp.copy, setup.state))

    def recorded(batches, arrays, mesh):
        for batch in prefetch_to_device(batches, arrays, mesh):
            pixels = np.asarray(batch.images).tobytes()
            examples.append(hashlib.sha256(pixels).hexdigest())
            yield batch

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(run, "make_mesh", lambda: mesh_of(devices)))
        stack.enter_context(mock.patch.object(run, "make_setup", lambda *_, **__: setup))
        stack.enter_context(
            mock.patch.object(
                run, "compiled_ahead", lambda functions, *_: contextlib.nullcontext(functions)
            )
        )
        stack.enter_context(mock.patch.object(loop, "prefetch_to_device", recorded))
        if not evaluates:
            found = Evaluation({"AP": 0.0}, {}, [])
            stack.enter_context(
                mock.patch.object(run_checkpoints, "evaluate_and_log", lambda *_, **__: found)
            )
        train_and_evaluate(config, FOLDER / name)
    lines = map(json.loads, (FOLDER / name / "metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    return {"losses": losses, "examples": examples}


def pairs(ours: str, theirs: str, parts: tuple[str, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The arrays of the last checkpoints of two runs."""
    runs = (
        jax.tree.leaves(Checkpoints(FOLDER / name / "checkpoints").read_part(parts))
        for name in (ours, theirs)
    )
    return list(zip(*runs, strict=True))


def largest_difference(ours: str, theirs: str) -> float:
    """Over the arrays of the model: the largest one, relative to the array's largest value, or to
    1e-3 where that is smaller: the gradients of such biases are little more than rounding."""
    arrays = pairs(ours, theirs, ("params", "batch_stats", "average"))
    return max(float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-3)) for x, y in arrays)


def detections(name: str) -> list[dict]:
    return json.loads((FOLDER / name / "detections.json").read_text())


def restored_everywhere() -> list[str]:
    """Saves a state of random numbers from every mesh that counts and restores it on every other;
    the ways on which a number changed or lies where it should not."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 16, 64), "odd": (3, 3, 7, 130), "bias": (64,), "step": ()}
    numbers = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    meshes = [(n, divided) for n in (8, 4, 2, 1) for divided in (False, True)]

    def sharding(devices, divided):
        return state_sharding(numbers, mesh_of(devices), MeshConfig(shard_state=divided))

    wrong = []
    for saved in ((8, False), (8, True), (1, False)):
        with Checkpoints(FOLDER / "saved_{}_{}".format(*saved)) as checkpoints:
            checkpoints.save(1, jax.device_put(numbers, sharding(*saved)), {})
            checkpoints.wait()
            for wanted in meshes:
                like = jax.tree.map(
                    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                    numbers,
                    sharding(*wanted),
                )
                found = checkpoints.restore(like)
                right = jax.tree.map(
                    lambda f, x, s: np.array_equal(f, x) and f.sharding == s.sharding,
                    *(found, numbers, like),
                )
                if not all(jax.tree.leaves(right)):
                    wrong.append(f"{saved} -> {wanted}")
    return wrong


def compiled_parts() -> dict:
    """What needs no run."""
    found = {"devices": jax.device_count(), "wrongly_restored": restored_everywhere()}
    return found | {name: compiled_collectives(name == "divided") for name in ("whole", "divided")}


def compared_runs() -> dict:
    """Runs with the state whole and divided, stopped, and continued on fewer devices."""
    runs = {
        "whole": train("whole", 8, False, steps=4, evaluates=True),
        "divided": train("divided", 8, True, steps=4, evaluates=True),
        "begun": train("stopped", 8, True, steps=2),
    }
    shutil.copytree(FOLDER / "stopped", FOLDER / "on_2")
    runs["stopped"] = train("stopped", 8, True, steps=4)
    runs["on_2"] = train("on_2", 2, False, steps=4)
    scores, expected = (
        np.sort([one["score"] for one in detections(name)]) for name in ("divided", "whole")
    )
    return {
        "runs": runs,
        "differences": {name: largest_difference(name, "whole") for name in ("divided", "on_2")},
        "stopped_is_straight": all(
            np.array_equal(x, y) for x, y in pairs("stopped", "divided", PARTS)
        ),
        "detections": (len(expected), float(np.abs(scores - expected).max())),
    }


keep_compilations(str(FOLDER / "cache"))
result = compared_runs() if sys.argv[2] == "runs" else compiled_parts()
(FOLDER / "result.json").write_text(json.dumps(result), encoding="utf-8")
