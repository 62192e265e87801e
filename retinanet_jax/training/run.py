"""A run from start to end: data, model, the steps, checkpoints, evaluations.

`train_and_evaluate` calls loop.py::run_steps, which calls step.py::train_step. A checkpoint is
written in `save_and_evaluate` below, by runtime/checkpoints.py.

The workdir then holds config.json, checkpoints/, best/, metrics.jsonl, tensorboard/, images/,
detections.json (COCO results format), results.json and data_notes.txt (what was skipped or changed
in the data). docs/reliability.md lists what can fail, and what is lost then.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, check_batch_size, to_json
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.dataset import Dataset, load_dataset
from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.predict import PredictFn, describe, make_predict_fn, read_variables
from retinanet_jax.runtime.best_checkpoint import keep_best
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.mesh import make_mesh, to_each_device
from retinanet_jax.runtime.preemption import Preempted, Preemption
from retinanet_jax.runtime.processes import check_same, from_first, to_first
from retinanet_jax.runtime.watchdog import Watchdog
from retinanet_jax.runtime.workdir import check_shared, disk_errors, locked, write_whole
from retinanet_jax.training.data_findings import check_coverage
from retinanet_jax.training.divergence import reporting_divergence
from retinanet_jax.training.evaluation import Evaluation, evaluate
from retinanet_jax.training.evaluation_files import write_evaluation
from retinanet_jax.training.loop import StepHooks, run_steps
from retinanet_jax.training.run_checks import (
    check_has_objects,
    check_resumes_same_run,
    check_same_classes,
    evaluation_warnings,
    facts_of_run,
    with_conventions_of,
)
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.training.setup import RunCache, TrainingSetup, make_setup
from retinanet_jax.training.step import TrainState


def train_and_evaluate(config: Config, workdir: Path, cache: RunCache | None = None) -> Evaluation:
    """Trains, or resumes from the latest checkpoint in `workdir`, and evaluates at the end.

    Args:
        config: of the run.
        workdir: folder of the run; created if missing.
        cache: datasets and compiled functions, shared by the runs of one process.

    Raises:
        ConfigError, DataError, WeightsError, CheckpointError: before the first step, with the fix.
        WorkdirError: another run uses `workdir`, or it is not writable.
        CheckpointError: a checkpoint could not be written.
        DivergenceError: a loss or a gradient is not finite; a report of the step is written.
        Preempted: stopped by a signal; the state reached is saved.
    """
    workdir, cache, mesh = Path(workdir), cache or RunCache(), make_mesh()
    parts = config.optimizer.accumulate_steps
    check_batch_size(config.train.batch_size, mesh.size, "config.train.batch_size", parts)
    check_batch_size(config.evaluation.batch_size, mesh.size, "config.evaluation.batch_size")
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(locked(workdir))
        stack.enter_context(disk_errors(workdir))
        check_shared(workdir)
        preemption = stack.enter_context(Preemption())
        train_set, eval_set = cache.datasets(config.data)
        check_has_objects(train_set)
        watchdog = stack.enter_context(
            Watchdog(config.train.watchdog_minutes, workdir, jax.process_index())
        )
        checkpoints = stack.enter_context(
            Checkpoints(workdir / "checkpoints", config.train.keep_checkpoints)
        )
        first = checkpoints.latest_step() or 0
        check_same("run", facts_of_run(config, first, train_set, eval_set))
        log = stack.enter_context(
            RunLog(workdir, first, config.train.steps, jax.process_index() == 0)
        )
        if first:
            check_resumes_same_run(checkpoints, config, train_set.categories, log)
        if log.active:
            write_whole(workdir / "config.json", to_json(config))
        functions = cache.functions(config, train_set.categories.num_classes, mesh)
        # In a thread: compiling, or reading the compilation cache, leaves Python idle.
        thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="coverage"))
        coverage = thread.submit(check_coverage, train_set, config) if log.active else None
        setup = make_setup(
            config, train_set.categories, mesh, log.message, functions, restored=bool(first)
        )
        if first:
            setup = setup._replace(state=checkpoints.restore(setup.state))
        log_start(log, config, train_set, eval_set, mesh, setup, first)
        if coverage and (finding := coverage.result()):
            log.message(f"warning: {finding}")

        run = Run(
            config=config,
            workdir=workdir,
            categories=train_set.categories,
            eval_set=eval_set,
            mesh=mesh,
            predict_fn=setup.predict_fn,
            checkpoints=checkpoints,
            log=log,
            preemption=preemption,
            watchdog=watchdog,
        )
        if first:
            make_up_evaluation(run, first, setup.state)
        hooks = StepHooks(run.is_due, run.save_and_evaluate, watchdog.beat)
        dropped = DroppedBoxes()
        with preemption.deferred(), reporting_divergence(train_set, config, workdir):
            state = run_steps(setup, train_set, config, mesh, log, hooks, dropped)
        found = evaluate_and_keep_best(run, max(first, config.train.steps), state)
        write_data_notes(run, train_set, dropped)
        return found


class Run(NamedTuple):
    """The parts of a run that its checkpoints and evaluations need."""

    config: Config
    workdir: Path
    categories: Categories
    eval_set: Dataset
    mesh: Mesh
    predict_fn: PredictFn
    checkpoints: Checkpoints
    log: RunLog
    preemption: Preemption
    watchdog: Watchdog

    def is_due(self, step: int) -> bool:
        """Whether `save_and_evaluate` is called after a step; the same on all processes."""
        return bool(self.preemption.agreed()) or self.config.train.saves_after(step)

    def save_and_evaluate(self, step: int, state: TrainState) -> None:
        """Writes a checkpoint, and evaluates it where an evaluation is due.

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
                evaluate_and_keep_best(self, step, state)


def evaluate_and_keep_best(run: Run, step: int, state: TrainState) -> Evaluation:
    """Evaluates the state of a step; copies its checkpoint to WORKDIR/best/ if it is the best."""
    found = evaluate_and_log(
        run.predict_fn,
        state.variables(),
        run.eval_set,
        run.config,
        run.mesh,
        run.log,
        step,
        on_batch=lambda done, total: run.watchdog.beat("evaluation"),
    )
    run.checkpoints.wait()
    if run.log.active and keep_best(run.workdir, step, found.summary):
        run.log.message(f"best so far, kept in {run.workdir / 'best'}")
    return found


def make_up_evaluation(run: Run, step: int, state: TrainState) -> None:
    """Evaluates the restored step if the run ended between its checkpoint and its evaluation."""
    evaluated = from_first("evaluated", run.log.has_evaluation(step))
    if run.config.train.evaluates_after(step) and not evaluated:
        evaluate_and_keep_best(run, step, state)


def checkpoint_metadata(config: Config, categories: Categories) -> dict[str, Any]:
    """The JSON part of a checkpoint: config and classes."""
    return {
        "config": to_json(config),
        "names": list(categories.names),
        "ids": list(categories.ids),
    }


def evaluate_workdir(config: Config | None, workdir: Path) -> Evaluation:
    """Evaluates the latest checkpoint of `workdir` on `config.data.eval_split`.

    The network and its conventions are those of the checkpoint. Data, thresholds and batch size are
    those of `config`, or of the run if `config` is None. Safe while a run trains in `workdir`.
    """
    workdir, mesh = Path(workdir), make_mesh()
    checkpoints = Checkpoints(workdir / "checkpoints")
    # Asked once, by one process: a run in training may add another checkpoint meanwhile.
    step = from_first("evaluated step", checkpoints.latest_step())
    stored, categories = describe(checkpoints, step)
    config = with_conventions_of(stored, config or stored)
    check_batch_size(config.evaluation.batch_size, mesh.size, "config.evaluation.batch_size")
    dataset = load_dataset(config.data, config.data.eval_split)
    check_same_classes(categories, dataset.categories, workdir)
    model = build_model(config.model, categories.num_classes, config.anchors.anchors_per_location)
    variables = to_each_device(read_variables(checkpoints, step), mesh)
    # start_step None: a run may be training here, so no line is removed from its log.
    with RunLog(workdir, None, step, jax.process_index() == 0) as log, disk_errors(workdir):
        log_lines(log, evaluation_warnings(dataset, config))
        predict_fn = make_predict_fn(model, config, mesh)
        found = evaluate_and_log(predict_fn, variables, dataset, config, mesh, log, step)
        log_lines(log, [dataset.notes])
        return found


def evaluate_and_log(
    predict_fn: PredictFn,
    variables: dict[str, Any],
    dataset: Dataset,
    config: Config,
    mesh: Mesh,
    log: RunLog,
    step: int,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Evaluates, logs the metrics, and writes results and example images into the workdir."""
    log.message(f"evaluating step {step} on {len(dataset.source)} images of {dataset.name}")
    found = evaluate(predict_fn, variables, dataset, config, mesh, on_batch=on_batch)
    write_evaluation(found, dataset, config, log, step)
    return found


def log_start(
    log: RunLog,
    config: Config,
    train_set: Dataset,
    eval_set: Dataset,
    mesh: Mesh,
    setup: TrainingSetup,
    first: int,
) -> None:
    """Logs what the run will do, so that a wrong setting is noticed early."""
    if first:
        log.message(f"resumes at step {first}, found in {log.workdir}")
    if first >= config.train.steps:
        log.message(
            f"config.train.steps={config.train.steps} is reached: evaluates only; set a larger "
            "--config.train.steps to train on"
        )
    log_lines(log, f"{train_set.found}\n{eval_set.found}".splitlines())
    parameters = sum(x.size for x in jax.tree.leaves(setup.state.params))
    categories = train_set.categories
    names = ", ".join(categories.names[:8]) + (" ..." if categories.num_classes > 8 else "")
    device = mesh.devices.flat[0].device_kind
    log.message(
        f"{len(train_set.source)} training images, {len(eval_set.source)} evaluation images, "
        f"{categories.num_classes} classes: {names}\n"
        f"{config.model.backbone}, norm {config.model.norm}, {config.model.frozen_stages} frozen "
        f"stages, {parameters / 1e6:.1f} M parameters, {config.model.dtype}\n"
        f"{mesh.devices.size} x {device}, batch size {config.train.batch_size}, "
        f"{config.train.steps} steps; the first step compiles, unless the compilation is cached"
    )
    log_lines(log, evaluation_warnings(eval_set, config))


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


def log_lines(log: RunLog, texts: list[str]) -> str:
    """Logs texts, each once and without the empty ones; returns them as one."""
    text = "\n".join(dict.fromkeys(filter(None, texts)))
    if text:
        log.message(text)
    return text
