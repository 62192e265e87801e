"""A run from start to end: data, model and state, the loop, checkpoints, evaluation, files.

What lies in a workdir afterwards: config.json, checkpoints/, best/, metrics.jsonl, tensorboard/,
images/, detections.json (COCO results format), results.json and data_notes.txt (what was skipped
or changed in the data). What may go wrong on the way, and what is lost then (nothing, or little),
stands in docs/reliability.md.
"""

import contextlib
import dataclasses
import json
import math
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from retinanet_jax.config.sections import TrainConfig
from retinanet_jax.config.settings import Config, check_batch_size, to_json
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.dataset import Dataset, load_dataset
from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.predict import PredictFn, describe, make_predict_fn, read_variables
from retinanet_jax.runtime.best_checkpoint import keep_best
from retinanet_jax.runtime.checkpoints import CheckpointError, Checkpoints
from retinanet_jax.runtime.mesh import make_mesh, to_each_device
from retinanet_jax.runtime.preemption import Preempted, Preemption
from retinanet_jax.runtime.processes import check_same, from_first, to_first
from retinanet_jax.runtime.watchdog import Watchdog
from retinanet_jax.runtime.workdir import check_shared, locked, telling_of_disk, write_whole
from retinanet_jax.training.data_findings import check_coverage
from retinanet_jax.training.divergence import reporting_divergence
from retinanet_jax.training.evaluation import Evaluation, draw_examples, evaluate
from retinanet_jax.training.loop import Hooks, run_steps
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.training.setup import RunCache, TrainingSetup, make_setup
from retinanet_jax.training.step import TrainState


def train_and_evaluate(config: Config, workdir: Path, cache: RunCache | None = None) -> Evaluation:
    """Trains, or goes on training where `workdir` has a checkpoint, and evaluates at the end.

    Args:
        config: of the run.
        workdir: of the run; made where it does not exist.
        cache: what runs before this one in the process leave to it, and it to those after it.

    Raises:
        ConfigError, DataError, WeightsError, CheckpointError: before the first step, with the fix.
        WorkdirError: another run holds `workdir`, or it cannot be written.
        CheckpointError: a checkpoint could not be written.
        DivergenceError: a loss or a gradient that is not finite, after the report of it.
        Preempted: a signal asked to stop; what was reached is saved.
    """
    workdir, cache = Path(workdir), cache or RunCache()
    mesh = make_mesh()
    check_batch_size(config.train.batch_size, mesh.size, "config.train.batch_size")
    check_batch_size(config.evaluation.batch_size, mesh.size, "config.evaluation.batch_size")
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(locked(workdir))
        stack.enter_context(telling_of_disk(workdir))
        check_shared(workdir)
        preemption = stack.enter_context(Preemption())
        train_set, eval_set = cache.datasets(config.data)
        watchdog = stack.enter_context(
            Watchdog(config.train.watchdog_minutes or 0, workdir, jax.process_index())
        )
        checkpoints = stack.enter_context(
            Checkpoints(workdir / "checkpoints", config.train.keep_checkpoints)
        )
        first = checkpoints.latest_step() or 0
        check_same("run", _what_all_do(config, first, train_set, eval_set))
        log = stack.enter_context(
            RunLog(workdir, first, config.train.steps, jax.process_index() == 0)
        )
        _check_same_run(checkpoints, config, train_set.categories, log)
        if log.active:
            write_whole(workdir / "config.json", to_json(config))
        functions = cache.functions(config, train_set.categories.num_classes, mesh)
        # Beside the compiler, or the reading of what it left, which leave Python to others.
        aside = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="coverage"))
        coverage = aside.submit(check_coverage, train_set, config) if log.active else None
        setup = make_setup(config, train_set.categories, mesh, log.say, functions, bool(first))
        if first:
            setup = setup._replace(state=checkpoints.restore(setup.state))
            log.say(f"goes on at step {first}, found in {workdir}")
            if first >= config.train.steps:
                log.say(
                    "all steps are done; with a larger --config.train.steps there would be more"
                )
        _introduce(log, config, train_set, eval_set, mesh, setup)
        if coverage and (finding := coverage.result()):
            log.say(f"warning: {finding}")

        def judge(step: int, state: TrainState) -> Evaluation:
            variables, beat = state.variables(), lambda *_: watchdog.beat("evaluation")
            found = evaluate_and_log(
                setup.predict_fn, variables, eval_set, config, mesh, log, step, beat
            )
            checkpoints.wait()
            if log.active and keep_best(workdir, step, found.summary):
                log.say(f"the best so far, kept in {workdir / 'best'}")
            return found

        # The run may have ended between a checkpoint and the evaluation that was due after it.
        evaluated = from_first("evaluated", log.has_evaluation(first))
        if first and config.train.evaluates_after(first) and not evaluated:
            judge(first, setup.state)
        metadata = _metadata(config, train_set.categories)
        keeper = _Keeper(config.train, checkpoints, metadata, judge, preemption, watchdog, log)
        hooks, dropped = Hooks(keeper.due, keeper.after, watchdog.beat), DroppedBoxes()
        with preemption.deferred(), reporting_divergence(train_set, config, workdir):
            state = run_steps(setup, train_set, config, mesh, log, hooks, dropped)
        found = judge(config.train.steps, state)
        for counts in to_first("boxes left out", dropped.counts()):
            dropped.merge(counts)
        notes = _tell_notes(log, train_set.notes, eval_set.notes, dropped.summary())
        if log.active:
            notes = notes or "nothing was skipped or changed"
            write_whole(workdir / "data_notes.txt", notes + "\n")
        return found


class _Keeper(NamedTuple):
    """Saves the states of a run and judges them, where that is due or a signal asks to stop."""

    config: TrainConfig
    checkpoints: Checkpoints
    metadata: dict
    judge: Callable[[int, TrainState], Evaluation]
    preemption: Preemption
    watchdog: Watchdog
    log: RunLog

    def due(self, step: int) -> bool:
        return bool(self.preemption.agreed()) or self.config.saves_after(step)

    def after(self, step: int, state: TrainState) -> None:
        self.watchdog.beat("checkpoint")
        self.checkpoints.save(step, state, self.metadata)
        if asked := self.preemption.agreed(now=True):
            self.checkpoints.wait()
            self.log.say(f"{asked}: saved step {step}")
            raise Preempted(asked, everywhere=True)
        if self.config.evaluates_after(step):
            if jax.process_count() > 1:
                self.checkpoints.wait()  # no process could end it without the others
            # The state is kept: a signal need not wait for the end of the evaluation.
            with self.preemption.deferred(False):
                self.judge(step, state)


def evaluate_workdir(config: Config | None, workdir: Path) -> Evaluation:
    """Evaluates the latest checkpoint of `workdir` on `config.data.eval_split`.

    The network and its conventions are those of the checkpoint; data, thresholds and batch size are
    those of `config`, or of the run if it is None. A run that trains in `workdir` meanwhile is not
    disturbed.
    """
    workdir, mesh = Path(workdir), make_mesh()
    checkpoints = Checkpoints(workdir / "checkpoints")
    # Once, on one process: a run in training may add another meanwhile.
    step = from_first("evaluated step", checkpoints.latest_step())
    stored, categories = describe(checkpoints, step)
    config = with_conventions_of(stored, config or stored)
    check_batch_size(config.evaluation.batch_size, mesh.size, "config.evaluation.batch_size")
    dataset = load_dataset(config.data, config.data.eval_split)
    check_same_classes(categories, dataset.categories, workdir)
    model = build_model(config.model, categories.num_classes, config.anchors.anchors_per_location)
    variables = to_each_device(read_variables(checkpoints, step), mesh)
    # It may be in training at this moment: nothing is taken out of its log.
    with RunLog(workdir, None, step, jax.process_index() == 0) as log, telling_of_disk(workdir):
        predict_fn = make_predict_fn(model, config, mesh)
        found = evaluate_and_log(predict_fn, variables, dataset, config, mesh, log, step)
        _tell_notes(log, dataset.notes)
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
    """Evaluates, and leaves the numbers, the detections and an image in the workdir."""
    log.say(f"evaluates step {step} on {len(dataset.source)} images of {dataset.name}")
    found = evaluate(predict_fn, variables, dataset, config, mesh, on_batch=on_batch)
    log.scalars(step, "eval", found.summary)
    log.table(f"step {step}, {dataset.name}", found.summary)
    log.table("AP by class", found.per_class)
    image = draw_examples(found.results, dataset, config)
    if image is not None:
        log.say(f"ground truth beside detections: {log.image(step, 'detections', image)}")
    if log.active:
        write_whole(log.workdir / "detections.json", json.dumps(found.results))
        # JSON has no NaN, the AP of a class that does not occur.
        per_class = {k: v if math.isfinite(v) else None for k, v in found.per_class.items()}
        results = {"step": step, "summary": found.summary, "per_class": per_class}
        write_whole(log.workdir / "results.json", json.dumps(results, indent=2))
    return found


def _introduce(
    log: RunLog,
    config: Config,
    train_set: Dataset,
    eval_set: Dataset,
    mesh: Mesh,
    setup: TrainingSetup,
) -> None:
    """Says what is about to happen, so that a wrong setting is seen before the time is spent."""
    parameters = sum(x.size for x in jax.tree.leaves(setup.state.params))
    categories = train_set.categories
    names = ", ".join(categories.names[:8]) + (" ..." if categories.num_classes > 8 else "")
    device = mesh.devices.flat[0].device_kind
    log.say(
        f"{len(train_set.source)} images to train on, {len(eval_set.source)} to evaluate on, "
        f"{categories.num_classes} classes: {names}\n"
        f"{config.model.backbone}, norm {config.model.norm}, {config.model.frozen_stages} frozen "
        f"stages, {parameters / 1e6:.1f} M parameters, {config.model.dtype}\n"
        f"{mesh.devices.size} x {device}, {config.train.batch_size} images a step, "
        f"{config.train.steps} steps; the first compiles, unless a run of this kind has before"
    )


def _what_all_do(
    config: Config, first: int, train_set: Dataset, eval_set: Dataset
) -> dict[str, Any]:
    """What every process of a run has to have alike; where its data lie is its own affair."""
    facts: dict[str, Any] = {"the first step": first, "config.seed": config.seed}
    for section, fields in dataclasses.asdict(config).items():
        if isinstance(fields, dict):
            facts |= {f"config.{section}.{name}": value for name, value in fields.items()}
    for local in ("root", "cache_dir", "annotations", "mix"):
        del facts[f"config.data.{local}"]
    for use, dataset in (("train", train_set), ("evaluate", eval_set)):
        source = dataset.source
        some = np.linspace(0, len(source) - 1, min(len(source), 1000)).astype(int)
        ids = [source.image_id(int(index)) for index in some]
        facts[f"the number of images to {use} on"] = len(source)
        facts[f"the hash of their ids to {use} on"] = zlib.crc32(np.array(ids, np.int64).tobytes())
        facts[f"the classes to {use} on"] = dataset.categories.names
    return facts


def _tell_notes(log: RunLog, *notes: str) -> str:
    """Says at the end, too, what was skipped or changed: the start has scrolled away by then."""
    text = "\n".join(dict.fromkeys(filter(None, notes)))
    if text:
        log.say(text)
    return text


def _check_same_run(
    checkpoints: Checkpoints, config: Config, categories: Categories, log: RunLog
) -> None:
    """Refuses to go on with another model or other classes; says which other fields changed."""
    if checkpoints.latest_step() is None:
        return
    before, stored = describe(checkpoints)
    check_same_classes(stored, categories, checkpoints.directory.parent)
    differing = [
        f"config.{section}.{name} was {value!r} and is {now!r}"
        for section in ("model", "anchors")
        for name, value in dataclasses.asdict(getattr(before, section)).items()
        if (now := getattr(getattr(config, section), name)) != value
    ]
    if differing:
        raise CheckpointError(
            f"{checkpoints.directory}: holds a run with another network: {'; '.join(differing)}; "
            "use another --workdir, or the same settings"
        )
    if before != config:
        log.say("some fields differ from those of the run that is continued; see config.json")


def check_same_classes(stored: Categories, found: Categories, workdir: Path) -> None:
    if stored != found:
        raise CheckpointError(
            f"{workdir}: was trained on the classes {', '.join(stored.names)}, the data has "
            f"{', '.join(found.names)}; use another workdir or the same data"
        )


def with_conventions_of(stored: Config, config: Config) -> Config:
    """`config` with what belongs to the weights of a checkpoint and is no choice of the user."""
    replace = dataclasses.replace
    rules = ("max_log_scale", "clamp_both_sides", "clip_before_nms", "drop_empty")
    return replace(
        config,
        model=stored.model,
        anchors=stored.anchors,
        pixels=stored.pixels,
        pipeline=replace(
            config.pipeline,
            eval_resizing=stored.pipeline.eval_resizing,
            eval_canvas=stored.pipeline.eval_canvas,
        ),
        postprocess=replace(
            config.postprocess, **{rule: getattr(stored.postprocess, rule) for rule in rules}
        ),
    )


def _metadata(config: Config, categories: Categories) -> dict:
    return {
        "config": to_json(config),
        "names": list(categories.names),
        "ids": list(categories.ids),
    }
