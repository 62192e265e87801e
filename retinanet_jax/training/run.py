"""A run from start to end: data, model, the steps, checkpoints, evaluations.

`train_and_evaluate` calls loop.py::run_steps, which calls step.py::train_step. A checkpoint is
written in `save_and_evaluate` below, by runtime/checkpoints.py, and evaluated there.

The workdir then holds config.json, checkpoints/, best/, metrics.jsonl, tensorboard/, images/,
detections.json (COCO results format), results.json, data_notes.txt (what was skipped or changed in
the data), and learning_rate.json with config.optimizer.learning_rate='auto'. docs/reliability.md
lists what can fail, and what is lost then.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, check_batch_size, to_json
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.best_checkpoint import best_step, keep_best
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.machine_memory import peak_of_process
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.runtime.preemption import Preempted, Preemption
from retinanet_jax.runtime.processes import check_same, from_first, to_first
from retinanet_jax.runtime.remote_workdir import open_workdir
from retinanet_jax.runtime.watchdog import Watchdog
from retinanet_jax.runtime.workdir import disk_errors, write_whole
from retinanet_jax.training.anchor_size import with_anchor_size
from retinanet_jax.training.auto_batch_size import with_batch_size
from retinanet_jax.training.auto_learning_rate import with_learning_rate
from retinanet_jax.training.compile_ahead import compiled_ahead
from retinanet_jax.training.data_findings import check_coverage
from retinanet_jax.training.divergence import reporting_divergence
from retinanet_jax.training.early_stopping import patience_is_used_up
from retinanet_jax.training.evaluation import Evaluation, evaluate, score, subsample
from retinanet_jax.training.loggers import Logger, open_loggers
from retinanet_jax.training.loop import StepHooks, run_steps
from retinanet_jax.training.model_flops import ModelFlops, run_flops
from retinanet_jax.training.run_checks import (
    check_has_objects,
    check_resumes_same_run,
    facts_of_run,
)
from retinanet_jax.training.run_length import with_run_length
from retinanet_jax.training.run_log import RunLog, log_lines
from retinanet_jax.training.setup import RunCache, make_setup
from retinanet_jax.training.start_log import log_start
from retinanet_jax.training.step import TrainState
from retinanet_jax.training.validation_loss import MeasuredPrediction
from retinanet_jax.training.workdir_evaluation import evaluate_and_log


def train_and_evaluate(
    config: Config,
    workdir: str | Path,
    cache: RunCache | None = None,
    *,
    loggers: Iterable[Logger | Callable[[int, dict[str, float]], object]] = (),
) -> Evaluation:
    """Trains, or resumes from the latest checkpoint in `workdir`, and evaluates at the end.

    Args:
        config: of the run.
        workdir: folder of the run, created if missing; or an address in object storage, see
            runtime/remote_workdir.py.
        cache: datasets and compiled functions, shared by the runs of one process.
        loggers: further ones beside config.train.loggers: objects with the methods of
            loggers.py::Logger, or functions of (step, scalars).

    Raises:
        ConfigError, DataError, WeightsError, CheckpointError: before the first step, with the fix.
        WorkdirError: another run uses `workdir`, or it is not writable or not accessible.
        CheckpointError: a checkpoint could not be written.
        DivergenceError: a loss or a gradient is not finite; a report of the step is written.
        Preempted: stopped by a signal; the state reached is saved.
    """
    cache, mesh = cache or RunCache(), make_mesh()
    check_batch_sizes(config, mesh)
    with contextlib.ExitStack() as stack:
        workdir, shared = stack.enter_context(open_workdir(workdir, config.data.cache_dir))
        stack.enter_context(disk_errors(workdir))
        preemption = stack.enter_context(Preemption())
        train_set, eval_set = cache.datasets(config.data)
        check_has_objects(train_set)
        classes = train_set.categories.num_classes
        config, anchors = with_anchor_size(config, train_set, workdir)
        config = with_batch_size(config, classes, mesh, print_first, workdir)
        config, length = with_run_length(config, train_set.epoch_size)
        config = with_learning_rate(config, train_set, workdir, print_first)
        watchdog = stack.enter_context(
            Watchdog(config.train.watchdog_minutes, workdir, jax.process_index())
        )
        checkpoints = stack.enter_context(
            Checkpoints(workdir / "checkpoints", config.train.keep_checkpoints, shared)
        )
        first = checkpoints.latest_step() or 0
        check_same("run", facts_of_run(config, first, train_set, eval_set))
        active = jax.process_index() == 0
        opened = open_loggers(config.train.loggers, workdir, first, loggers) if active else ()
        log = stack.enter_context(RunLog(workdir, first, config.train.steps, active, opened))
        if first:
            check_resumes_same_run(checkpoints, config, train_set.categories, log)
        if log.active:
            write_whole(workdir / "config.json", to_json(config))
            log.config(dataclasses.asdict(config))
        functions = stack.enter_context(
            compiled_ahead(
                cache.functions(config, classes, mesh), train_set, eval_set, config, mesh, first
            )
        )
        shapes, devices = functions.state_shapes.variables(), mesh.devices.flat

        def check_and_count() -> ModelFlops | None:
            if log.active and (finding := check_coverage(train_set, config)):
                log.message(f"warning: {finding}")
            return run_flops(config, shapes, classes, devices)

        # In a thread: compiling, or reading the compilation cache, leaves Python idle.
        thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="findings"))
        flops = thread.submit(check_and_count)
        setup = make_setup(
            *(config, train_set.categories, mesh, log.message, functions),
            restored=bool(first),
            train_set=train_set,
        )
        if first:
            setup = setup._replace(state=checkpoints.restore(setup.state))
        log_start(log, config, train_set, eval_set, mesh, setup, first)
        log_lines(log, [length, anchors])

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
        )
        state, last, dropped = setup.state, first, DroppedBoxes()
        if first:
            make_up_evaluation(run, first, state)
        if not (first and run.is_over(first)):
            hooks = StepHooks(run.is_due, run.save_and_evaluate, watchdog.beat)
            with preemption.deferred(), reporting_divergence(train_set, config, workdir):
                state = run_steps(
                    setup, train_set, config, mesh, log, hooks, dropped, flops=flops.result
                )
            last = max(first, config.train.steps)
        found = run.stopped or evaluate_at_end(run, last, state)
        write_data_notes(run, train_set, dropped)
        if peak := peak_of_process():
            log.message(f"peak memory of the process: {peak / 1e9:.2f} GB")
        return found


def check_batch_sizes(config: Config, mesh: Mesh) -> None:
    """Raises ConfigError where a batch does not divide over the devices."""
    if config.train.batch_size != "auto":
        parts = config.optimizer.accumulate_steps
        check_batch_size(config.train.batch_size, mesh.size, "config.train.batch_size", parts)
    check_batch_size(config.evaluation.batch_size, mesh.size, "config.evaluation.batch_size")


def print_first(message: str) -> None:
    """Prints a message, before the log of the run is open, on the first process alone."""
    if jax.process_index() == 0:
        print(message, flush=True)


@dataclasses.dataclass
class Run:
    """The parts of a run that its checkpoints and evaluations need.

    measured: makes the predict function of an evaluation.
    stopped: the evaluation that ended the run early (config.train.patience), once there is one.
    """

    config: Config
    workdir: Path
    categories: Categories
    eval_set: Dataset
    mesh: Mesh
    measured: Callable[[], MeasuredPrediction]
    checkpoints: Checkpoints
    log: RunLog
    preemption: Preemption
    watchdog: Watchdog
    stopped: Evaluation | None = None

    def on_batch(self, done: int, total: int) -> None:
        """Called after each batch of an evaluation."""
        self.watchdog.beat("evaluation")

    def is_due(self, step: int) -> bool:
        """Whether `save_and_evaluate` is called after a step; the same on all processes."""
        return bool(self.preemption.agreed()) or self.config.train.saves_after(step)

    def save_and_evaluate(self, step: int, state: TrainState) -> bool:
        """Writes a checkpoint, and evaluates it where an evaluation is due.

        Returns:
            Whether the run ends here, because config.train.patience is used up.

        Raises:
            Preempted: a signal asked to stop; the checkpoint is written.
        """
        self.watchdog.beat("checkpoint")
        metadata = checkpoint_metadata(self.config, self.categories)
        self.checkpoints.save(step, state, metadata)
        if signal := self.preemption.agreed(now=True):
            self.checkpoints.wait()
            self.log.message(f"{signal}: saved step {step}")
            raise Preempted(signal, everywhere=True)
        if self.config.train.evaluates_after(step):
            if jax.process_count() > 1:
                self.checkpoints.wait()  # no process can finish it without the others
            # The checkpoint is saved: a signal may interrupt the evaluation.
            with self.preemption.deferred(False):
                found = evaluate_in_between(self, step, state)
            if self.is_over(step):
                self.stopped = found
        return self.stopped is not None

    def is_over(self, step: int) -> bool:
        """Whether early stopping ends the run after the evaluation of a step, which is logged."""
        patience = self.config.train.patience
        if patience is None:
            return False
        best = from_first(f"best step at {step}", best_step(self.workdir))
        if not patience_is_used_up(self.config.train, step, best):
            return False
        self.log.message(
            f"ends early, after step {step}: the AP of step {best} is the best of the last "
            f"{patience + 1} evaluations (config.train.patience={patience})"
        )
        return True


def evaluate_in_between(run: Run, step: int, state: TrainState) -> Evaluation:
    """Evaluates the state of a step on config.evaluation.limit images; keeps it if it is the best.

    The best so far is in WORKDIR/best/.
    """
    dataset = subsample(run.eval_set, run.config.evaluation.limit)
    found = evaluate_state(run, step, state, dataset, tables=False)
    keep_if_best(run, step, found)
    return found


def evaluate_at_end(run: Run, step: int, state: TrainState) -> Evaluation:
    """Evaluates the last state on all images; keeps it if it is the best.

    With config.evaluation.limit, the images of the other evaluations decide which is the best. With
    a moving average of the weights, the weights themselves are evaluated as well, and logged.
    """
    found = compared = evaluate_state(run, step, state, run.eval_set, tables=True)
    fewer = subsample(run.eval_set, run.config.evaluation.limit)
    if fewer is not run.eval_set:
        ids = {fewer.source.image_id(i) for i in range(len(fewer.source))}
        compared = score([r for r in found.results if r["image_id"] in ids], fewer, run.config)
    keep_if_best(run, step, compared)
    if state.average is not None:
        last = {"params": state.params, "batch_stats": state.batch_stats}
        parts = run.eval_set, run.config, run.mesh
        measured = run.measured()
        raw = evaluate(measured, last, *parts, on_batch=run.on_batch).summary
        run.log.scalars(step, "eval_raw", raw | measured.losses(run.config.loss))
        (metric, value), *_ = raw.items()
        if value is not None:
            run.log.message(
                f"{metric} {found.summary[metric]:.4f} with the averaged weights, {value:.4f} "
                "with those of the last step (eval_raw in metrics.jsonl)"
            )
    return found


def evaluate_state(
    run: Run, step: int, state: TrainState, dataset: Dataset, *, tables: bool
) -> Evaluation:
    """Evaluates the state of a step, and writes the results into the workdir."""
    return evaluate_and_log(
        run.measured(),
        state.variables(),
        dataset,
        run.config,
        run.mesh,
        run.log,
        step,
        on_batch=run.on_batch,
        tables=tables,
    )


def keep_if_best(run: Run, step: int, found: Evaluation) -> None:
    """Copies the checkpoint of a step to WORKDIR/best/ if its evaluation is the best so far."""
    run.checkpoints.wait()
    if run.log.active and keep_best(run.workdir, step, found.summary):
        run.log.message(f"best so far, kept in {run.workdir / 'best'}")


def make_up_evaluation(run: Run, step: int, state: TrainState) -> None:
    """Evaluates the restored step if the run ended between its checkpoint and its evaluation."""
    evaluated = from_first("evaluated", run.log.has_evaluation(step))
    if run.config.train.evaluates_after(step) and not evaluated:
        evaluate_in_between(run, step, state)


def checkpoint_metadata(config: Config, categories: Categories) -> dict[str, Any]:
    """The JSON part of a checkpoint: config and classes."""
    return {
        "config": to_json(config),
        "names": list(categories.names),
        "ids": list(categories.ids),
    }


def write_data_notes(run: Run, train_set: Dataset, dropped: DroppedBoxes) -> None:
    """Logs what was skipped or changed in the data, and writes it to data_notes.txt.

    The same lines at the start of the run have scrolled away by the end.
    """
    for counts in to_first("dropped boxes", dropped.counts()):
        dropped.merge(counts)
    notes = log_lines(run.log, [train_set.notes, run.eval_set.notes, dropped.summary()])
    if run.log.active:
        notes = notes or "nothing was skipped or changed"
        write_whole(run.workdir / "data_notes.txt", notes + "\n")
