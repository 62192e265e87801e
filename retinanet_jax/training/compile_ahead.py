"""Compiles the programs of a run in a thread, while the run prepares what else it needs.

The program of the step comes first. What the first step does not need waits for it (`FirstStep`),
or it would take processor time from it.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.pipeline.batch import Batch, DroppedBoxes, HostBatch
from retinanet_jax.data.pipeline.input_pipeline import eval_batches
from retinanet_jax.runtime.machine_memory import return_freed_memory
from retinanet_jax.runtime.mesh import for_this_process, replicated, split_over_data
from retinanet_jax.training.loop import make_batches
from retinanet_jax.training.setup import CompiledFunctions
from retinanet_jax.training.step import focal_params
from retinanet_jax.training.train_state import TrainState


class FirstStep:
    """Lets threads wait until the first step of this start has run."""

    def __init__(self):
        self._result: Future[Any] = Future()
        self.is_over = False

    def wait(self) -> None:
        """Returns when the results of the step are computed, or at once after `skip` or `end`."""
        with contextlib.suppress(CancelledError):
            jax.block_until_ready(self._result.result())

    def called(self, result: Any) -> None:
        """Tells that a step has returned `result`, arrays that may still be computed."""
        if not self._result.done():
            self._result.set_result(result)

    def skip(self) -> None:
        """Ends all waiting: no step comes first."""
        self._result.cancel()

    def end(self) -> None:
        """Ends all waiting: the run is over, and nothing that it would need is to be compiled."""
        self.is_over = True
        self.skip()


@contextlib.contextmanager
def compiled_ahead(
    functions: CompiledFunctions,
    train_set: Dataset,
    eval_set: Dataset,
    config: Config,
    mesh: Mesh,
    first: int,
    first_step: FirstStep,
) -> Iterator[CompiledFunctions]:
    """The functions of a run. A thread compiles the step, and after the first step the evaluation.

    Both are compiled for the shapes of their first batch, and a call waits until its program is
    ready. With several processes, each compiles at the first call, so that all of them start
    programs in one order.

    Args:
        functions: of the config.
        train_set: gives the shape of the batches.
        eval_set: likewise.
        config: of the run.
        mesh: of devices.
        first: steps done before.
        first_step: is told when the step is called.
    """
    if jax.process_count() > 1:
        first_step.skip()
        yield functions
        return
    settings = for_this_process(config.pipeline)
    focal = jax.device_put(focal_params(config.loss), replicated(mesh))

    def compile_step() -> None:
        batch = make_batches(train_set, config, settings, DroppedBoxes()).padding(first)
        shapes = functions.state_shapes, _shapes(batch, mesh), focal
        if not first_step.is_over:
            functions.step_fn.lower(*shapes, np.float32(0)).compile()
            return_freed_memory()

    def compile_evaluation() -> None:
        first_step.wait()
        if first_step.is_over:
            return
        rows = config.evaluation.batch_size
        batch = eval_batches(eval_set, batch_size=rows, settings=settings).padding(0)
        variables = jax.tree.map(
            lambda x: x.update(sharding=replicated(mesh)), functions.state_shapes.variables()
        )
        functions.measure_fn.lower(variables, focal, _shapes(batch, mesh)).compile()
        return_freed_memory()

    thread = ThreadPoolExecutor(1, thread_name_prefix="compile")
    try:
        step = measure = None
        if first < config.train.steps:
            step = thread.submit(compile_step)
        else:
            first_step.skip()
        if config.data.tile is None:  # else evaluations have other images
            measure = thread.submit(compile_evaluation)

        def step_fn(*arguments: Any) -> tuple[TrainState, dict[str, jax.Array]]:
            _wait_for(step)
            state, metrics = functions.step_fn(*arguments)
            first_step.called(metrics)
            return state, metrics

        def measure_fn(*arguments: Any) -> Any:
            first_step.skip()
            _wait_for(measure)
            return functions.measure_fn(*arguments)

        yield functions._replace(step_fn=step_fn, measure_fn=measure_fn)
    finally:
        first_step.end()
        # An error is shown at once; the process ends when the compiler does.
        thread.shutdown(wait=False, cancel_futures=True)


def _shapes(host: HostBatch, mesh: Mesh) -> Batch:
    rows = split_over_data(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), host.batch)


def _wait_for(compiling: Future | None) -> None:
    """An error in the thread is left to the call, which meets it again."""
    if compiling is not None:
        wait([compiling])
