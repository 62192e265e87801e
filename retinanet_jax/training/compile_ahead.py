"""Compiles the programs of a run in a thread, while the run prepares what else it needs."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
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


@contextlib.contextmanager
def compiled_ahead(
    functions: CompiledFunctions,
    train_set: Dataset,
    eval_set: Dataset,
    config: Config,
    mesh: Mesh,
    first: int,
) -> Iterator[CompiledFunctions]:
    """The functions of a run, of which a thread compiles the step, then that of evaluations.

    Of each, the program for the first batch. The functions wait until theirs is ready. With several
    processes, each compiles at the first call, so that all of them start programs in one order.

    Args:
        functions: of the config.
        train_set: gives the shape of the batches.
        eval_set: likewise.
        config: of the run.
        mesh: of devices.
        first: steps done before.
    """
    if jax.process_count() > 1:
        yield functions
        return
    settings = for_this_process(config.pipeline)
    focal = jax.device_put(focal_params(config.loss), replicated(mesh))

    def compile_step() -> None:
        batch = make_batches(train_set, config, settings, DroppedBoxes()).padding(first)
        shapes = functions.state_shapes, _shapes(batch, mesh), focal
        functions.step_fn.lower(*shapes, np.float32(0)).compile()
        return_freed_memory()

    def compile_evaluation() -> None:
        rows = config.evaluation.batch_size
        batch = eval_batches(eval_set, batch_size=rows, settings=settings).padding(0)
        variables = jax.tree.map(
            lambda x: x.update(sharding=replicated(mesh)), functions.state_shapes.variables()
        )
        functions.measure_fn.lower(variables, focal, _shapes(batch, mesh)).compile()
        return_freed_memory()

    thread = ThreadPoolExecutor(1, thread_name_prefix="compile")
    try:
        step = thread.submit(compile_step) if first < config.train.steps else None
        # With tiles, evaluations have other images.
        measure = thread.submit(compile_evaluation) if config.data.tile is None else None
        yield functions._replace(
            step_fn=_after(step, functions.step_fn),
            measure_fn=_after(measure, functions.measure_fn),
        )
    finally:
        # An error is shown at once; the process ends when the compiler does.
        thread.shutdown(wait=False, cancel_futures=True)


def _shapes(host: HostBatch, mesh: Mesh) -> Batch:
    rows = split_over_data(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), host.batch)


def _after(compiling: Future | None, function: Callable) -> Callable[..., Any]:
    """`function`, called once a thread has compiled it; an error there comes up in the call."""

    def call(*arguments: Any) -> Any:
        if compiling is not None:
            wait([compiling])
        return function(*arguments)

    return call
