"""A run from start to end: data, model, steps, checkpoints, evaluations.

`train_and_evaluate` calls loop.py::run_steps, which calls step.py::train_step. A checkpoint is
written in run_checkpoints.py::Run.save_and_evaluate, and evaluated there.

The workdir then holds config.json, checkpoints/, best/, metrics.jsonl, tensorboard/, images/,
detections.json (COCO results format), results.json, data_notes.txt (what was skipped or changed in
the data), and learning_rate.json with config.optimizer.learning_rate='auto'. docs/reliability.md
lists what can fail, and what is lost then.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, check_batch_size, to_json
from retinanet_jax.config.without_effect import lines_without_effect
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.machine_memory import peak_of_process
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.runtime.preemption import Preemption
from retinanet_jax.runtime.processes import check_same, from_first, to_first
from retinanet_jax.runtime.remote_workdir import open_workdir
from retinanet_jax.runtime.watchdog import Watchdog
from retinanet_jax.runtime.workdir import disk_errors, write_whole
from retinanet_jax.training.auto_learning_rate import with_learning_rate
from retinanet_jax.training.check_additions import check_additions
from retinanet_jax.training.compile_ahead import FirstStep, compiled_ahead
from retinanet_jax.training.data_findings import check_coverage
from retinanet_jax.training.divergence import reporting_divergence
from retinanet_jax.training.evaluation import Evaluation
from retinanet_jax.training.loggers import Logger, open_loggers
from retinanet_jax.training.loop import StepHooks, run_steps
from retinanet_jax.training.model_flops import ModelFlops, run_flops
from retinanet_jax.training.resolve_auto import check_train_batch, print_first, resolve_auto
from retinanet_jax.training.run_checkpoints import Run, evaluate_at_end, make_up_evaluation
from retinanet_jax.training.run_checks import (
    check_has_objects,
    check_resumes_same_run,
    facts_of_run,
)
from retinanet_jax.training.run_log import RunLog, log_lines
from retinanet_jax.training.setup import RunCache, TrainingSetup, make_setup
from retinanet_jax.training.start_log import log_start
from retinanet_jax.training.train_state import TrainState
from retinanet_jax.training.validation_loss import MeasuredPrediction


def train_and_evaluate(
    config: Config,
    workdir: str | Path,
    cache: RunCache | None = None,
    *,
    loggers: Iterable[Logger | Callable[[int, dict[str, float]], object]] = (),
) -> Evaluation:
    """Trains, or resumes from the latest checkpoint in `workdir`, and evaluates at the end.

    Args:
        config: configuration of the run.
        workdir: folder of the run, created if missing; or an address in object storage, see
            runtime/remote_workdir.py.
        cache: datasets and compiled functions, shared by the runs of one process.
        loggers: loggers in addition to config.train.loggers: objects with the methods of
            loggers.py::Logger, or functions of (step, scalars).

    Raises:
        ConfigError, DataError, WeightsError, CheckpointError: raised before the first step; the
            message has the fix.
        WorkdirError: another run uses `workdir`, or it is not writable or not accessible.
        CheckpointError: a checkpoint could not be written.
        DivergenceError: a loss or a gradient is not finite; a report of the step is written.
        Preempted: stopped by a signal; the state reached is saved.
    """
    cache, mesh = cache or RunCache(), make_mesh()
    check_train_batch(config, mesh)
    check_batch_size(config.evaluation.batch_size, mesh.size, "config.evaluation.batch_size")
    with contextlib.ExitStack() as stack:
        workdir, shared = stack.enter_context(open_workdir(workdir, config.data.cache_dir))
        stack.enter_context(disk_errors(workdir))
        preemption = stack.enter_context(Preemption())
        train_set, eval_set = cache.datasets(config.data)
        check_has_objects(train_set)
        classes = train_set.categories.num_classes
        check_additions(config, classes, eval_set)
        checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep_checkpoints, shared)
        first = checkpoints.latest_step() or 0
        # Without a checkpoint to resume, the choices of an earlier start may no longer be right.
        resumed = workdir if from_first("resumes", first > 0) else None
        unused = lines_without_effect(config)
        config, choices = resolve_auto(config, train_set, mesh, workdir=resumed)
        functions = cache.functions(config, classes, mesh)
        config = with_learning_rate(config, train_set, workdir, print_first, functions)
        watchdog = stack.enter_context(
            Watchdog(config.train.watchdog_minutes, workdir, jax.process_index())
        )
        stack.enter_context(checkpoints)
        check_same("run", facts_of_run(config, first, train_set, eval_set))
        active = jax.process_index() == 0
        opened = open_loggers(config.train.loggers, workdir, first, loggers) if active else ()
        log = stack.enter_context(RunLog(workdir, first, config.train.steps, active, opened))
        trains = first < config.train.steps
        same = not first or check_resumes_same_run(checkpoints, config, train_set.categories, log)
        if log.active and (trains or same):
            # Else another evaluation of a finished run, which other settings have trained.
            write_whole(workdir / "config.json", to_json(config))
            log.config(dataclasses.asdict(config))
        first_step = FirstStep()
        functions = stack.enter_context(
            compiled_ahead(functions, train_set, eval_set, config, mesh, first, first_step)
        )
        shapes = functions.state_shapes.variables()
        flops = stack.enter_context(findings(log, config, train_set, shapes, mesh, first_step))
        setup = make_setup(
            *(config, train_set.categories, mesh, log.message, functions),
            restored=bool(first),
            train_set=train_set,
        )
        if first:
            setup = setup._replace(state=checkpoints.restore(setup.state))
        log_start(log, config, train_set, eval_set, mesh, setup, first)
        log_lines(log, [*choices, *unused])

        run = Run(
            config=config,
            workdir=workdir,
            categories=train_set.categories,
            eval_set=eval_set,
            mesh=mesh,
            measured=functools.partial(MeasuredPrediction, setup.measure_fn, setup.focal),
            checkpoints=checkpoints,
            log=log,
            preemption=preemption,
            watchdog=watchdog,
            decides_best=trains or same,
        )
        dropped = DroppedBoxes()
        state = run_remaining_steps(run, setup, train_set, first, dropped, flops)
        found = evaluate_at_end(run, int(state.step), state)
        write_data_notes(run, train_set, dropped)
        if peak := peak_of_process():
            log.message(f"peak memory of the process: {peak / 1e9:.2f} GB")
        return found


@contextlib.contextmanager
def findings(
    log: RunLog,
    config: Config,
    train_set: Dataset,
    shapes: Any,
    mesh: Mesh,
    first_step: FirstStep,
) -> Iterator[Callable[[], ModelFlops | None]]:
    """Logs what the anchors miss, then counts the operations of a step of the shapes' network.

    This runs in a thread, after the first step. The function returns None until they are counted.
    """

    def check_and_count() -> ModelFlops | None:
        first_step.wait()
        if log.active and (finding := check_coverage(train_set, config)):
            log.message(f"warning: {finding}")
        return run_flops(config, shapes, train_set.categories.num_classes, mesh.devices.flat)

    with ThreadPoolExecutor(1, thread_name_prefix="findings") as thread:
        counted = thread.submit(check_and_count)
        try:
            yield lambda: counted.result() if counted.done() else None
        finally:
            first_step.end()


def run_remaining_steps(
    run: Run,
    setup: TrainingSetup,
    train_set: Dataset,
    first: int,
    dropped: DroppedBoxes,
    flops: Callable[[], ModelFlops | None],
) -> TrainState:
    """Runs the steps after `first`, and returns the last state; see loop.py::run_steps."""
    if first:
        make_up_evaluation(run, first, setup.state)
        if run.is_over(first):
            return setup.state
    hooks = StepHooks(run.is_due, run.save_and_evaluate, run.watchdog.beat)
    parts = train_set, run.config, run.mesh, run.log, hooks, dropped
    with run.preemption.deferred(), reporting_divergence(train_set, run.config, run.workdir):
        return run_steps(setup, *parts, flops=flops)


def write_data_notes(run: Run, train_set: Dataset, dropped: DroppedBoxes) -> None:
    """Logs what was skipped or changed in the data, and writes it to data_notes.txt.

    By the end of a run, the same lines at its start have scrolled away.
    """
    for counts in to_first("dropped boxes", dropped.counts()):
        dropped.merge(counts)
    notes = log_lines(run.log, [train_set.notes, run.eval_set.notes, dropped.summary()])
    if run.log.active:
        notes = notes or "nothing was skipped or changed"
        write_whole(run.workdir / "data_notes.txt", notes + "\n")
