"""The training loop: fetches a batch, runs `train_step`, logs its metrics, saves when due."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.data.pipeline.input_pipeline import PipelineConfig, train_batches
from retinanet_jax.data.pipeline.prefetch import Batches, HasSource
from retinanet_jax.runtime.mesh import for_this_process, prefetch_to_device
from retinanet_jax.training.meter import Meter, stack_metrics
from retinanet_jax.training.model_flops import ModelFlops
from retinanet_jax.training.profiling import StepTrace
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.training.setup import TrainingSetup
from retinanet_jax.training.train_state import TrainState


class StepHooks(NamedTuple):
    """Functions that the loop calls around its steps.

    is_due: function of a step: whether `save_and_evaluate` is called after it. All processes must
        agree.
    save_and_evaluate: function that is called with a step and its state, once the metrics of all
        steps so far are known to be finite; returns whether the run ends here.
    beat: function that is called with the name of each stage that begins ('data' or 'step'), for
        the watchdog.
    """

    is_due: Callable[[int], bool]
    save_and_evaluate: Callable[[int, TrainState], bool | None]
    beat: Callable[[str], None] = lambda stage: None


def run_steps(
    setup: TrainingSetup,
    dataset: HasSource,
    config: Config,
    mesh: Mesh,
    log: RunLog,
    hooks: StepHooks,
    dropped: DroppedBoxes,
    flops: Callable[[], ModelFlops | None] = lambda: None,
) -> TrainState:
    """Runs `train_step` from the state's step to the last one, or until a hook ends the run.

    The metrics of a step are read while the devices run the next one, so the devices never wait for
    the host. All metrics are read before `hooks.save_and_evaluate`.

    Args:
        setup: compiled step and first state; the state is donated.
        dataset: dataset to train on.
        config: configuration of the run.
        mesh: mesh of devices.
        log: log of the run.
        hooks: functions that are called around the steps.
        dropped: counter of the boxes that do not fit into a batch.
        flops: function that returns the operations of the run, for the log.

    Returns:
        The final state.

    Raises:
        DivergenceError: more than config.train.max_skipped updates in a row were not finite.
    """
    state, first = setup.state, int(setup.state.step)
    batches = make_batches(dataset, config, for_this_process(config.pipeline), dropped)
    meter = Meter(config, log, batches.describe, flops)
    stream = prefetch_to_device(batches.iterate(first), lambda host: host.batch, mesh)
    trace = StepTrace(config.train.profile_steps, log)
    with contextlib.closing(stream), trace:
        for step in range(first + 1, config.train.steps + 1):
            hooks.beat("data")
            with meter.waiting():
                batch = next(stream)
            hooks.beat("step")
            trace.start_before(step)
            with meter.calling(batch.images.shape[1:3]):
                rate = setup.schedule(step - 1)
                state, metrics = setup.step_fn(state, batch, setup.focal, rate)
                metrics = stack_metrics(metrics)
            meter.add(step, metrics)
            if trace.ends_with(step):
                with meter.pausing():
                    trace.stop()
            if hooks.is_due(step):
                with meter.pausing():
                    ends = hooks.save_and_evaluate(step, state)
                if ends:
                    break
    return state


def make_batches(
    dataset: HasSource, config: Config, settings: PipelineConfig, dropped: DroppedBoxes
) -> Batches:
    """Returns the batches of a run; step `step` (from 1) gets `batches[step - 1]`.

    Args:
        settings: config.pipeline for whole batches, or its `for_this_process` for the rows of this
            process.
    """
    return train_batches(
        dataset,
        batch_size=config.train.batch_size,
        seed=config.seed,
        settings=settings,
        augmentation=config.augmentation,
        total_steps=config.train.steps,
        dropped=dropped,
    )
