"""Compiling in a thread: which programs, in which order, and where its errors come up."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_config

from retinanet_jax.data.mix import load_datasets
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training.compile_ahead import FirstStep, compiled_ahead
from retinanet_jax.training.setup import CompiledFunctions
from retinanet_jax.training.train_state import TrainState


class Recorded:
    """A compiled function that records the shapes it is lowered for, once it may."""

    def __init__(self, log: list, may_compile: threading.Event):
        self._log, self._may_compile = log, may_compile

    def lower(self, *arguments):
        self._may_compile.wait(60)
        (batch,) = (x for x in arguments if hasattr(x, "image_sizes"))
        self._log.append(batch.images.shape)
        raise RuntimeError("out of memory")

    def __call__(self, *arguments):
        self._log.append("called")
        return arguments


@pytest.mark.parametrize(
    ("first", "expected"),
    [(0, [(4, 64, 64, 3), (2, 64, 64, 3), "called"]), (4, [(2, 64, 64, 3), "called"])],
)
def test_the_step_compiles_before_the_evaluation_and_both_before_they_run(first, expected):
    config, mesh, log = small_config(evaluation__batch_size=2), make_mesh(jax.devices()[:1]), []
    may_compile = threading.Event()
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    state = TrainState(shape, {"w": shape}, {}, {})
    recorded = Recorded(log, may_compile)
    functions = CompiledFunctions(None, None, state, recorded, recorded)
    datasets = load_datasets(config.data)
    with compiled_ahead(functions, *datasets, config, mesh, first, FirstStep()) as ahead:
        assert ahead.state_shapes is state and not log
        threading.Timer(0.05, may_compile.set).start()
        # The error of the thread is left to the call, which would meet it again.
        assert ahead.measure_fn("variables", np.float32(1)) == ("variables", np.float32(1))
    assert log == expected


def test_what_can_wait_begins_when_the_first_step_has_run():
    config, mesh, log = small_config(evaluation__batch_size=2), make_mesh(jax.devices()[:1]), []
    may_compile = threading.Event()
    may_compile.set()
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    state = TrainState(shape, {"w": shape}, {}, {})
    recorded, first_step = Recorded(log, may_compile), FirstStep()
    functions = CompiledFunctions(None, None, state, recorded, recorded)
    other = threading.Thread(target=lambda: (first_step.wait(), log.append("checked")))
    other.start()
    datasets = load_datasets(config.data)
    with compiled_ahead(functions, *datasets, config, mesh, 0, first_step) as ahead:
        assert ahead.step_fn("state", {"loss": jnp.ones(())}) == ("state", {"loss": 1})
        assert log[:2] == [(4, 64, 64, 3), "called"]
        other.join(60)
        assert ahead.measure_fn("variables", np.float32(1)) == ("variables", np.float32(1))
    assert sorted(map(str, log[2:])) == ["(2, 64, 64, 3)", "called", "checked"]


def test_waiting_ends_where_no_step_comes():
    for end in (FirstStep.skip, lambda first_step: first_step.called(jnp.ones(()))):
        first_step = FirstStep()
        threading.Timer(0.05, end, [first_step]).start()
        first_step.wait()
        first_step.skip()
        first_step.called(jnp.ones(()))
        first_step.wait()


def test_nothing_is_compiled_when_the_run_is_over():
    config, mesh, log = small_config(evaluation__batch_size=2), make_mesh(jax.devices()[:1]), []
    may_compile = threading.Event()
    may_compile.set()
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    recorded = Recorded(log, may_compile)
    functions = CompiledFunctions(
        None, None, TrainState(shape, {"w": shape}, {}, {}), recorded, recorded
    )
    datasets, compiled = load_datasets(config.data), (4, 64, 64, 3)
    with (
        pytest.raises(KeyboardInterrupt),
        compiled_ahead(functions, *datasets, config, mesh, 0, FirstStep()),
    ):
        while not log:
            time.sleep(0.01)
        raise KeyboardInterrupt
    for thread in threading.enumerate():
        if thread.name.startswith("compile"):
            thread.join(60)
    assert log == [compiled]
