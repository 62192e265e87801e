"""Writes the checkpoints of a run, and evaluates them.

`Run.save_and_evaluate` writes a checkpoint with runtime/checkpoints.py, and evaluates it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, to_json
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.best_checkpoint import best_step, keep_best, measured_otherwise
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.preemption import Preempted, Preemption
from retinanet_jax.runtime.processes import from_first
from retinanet_jax.runtime.watchdog import Watchdog
from retinanet_jax.training.early_stopping import patience_is_used_up
from retinanet_jax.training.evaluation import Evaluation, evaluate, score, subsample
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.training.train_state import TrainState
from retinanet_jax.training.validation_loss import MeasuredPrediction
from retinanet_jax.training.workdir_evaluation import evaluate_and_log


@dataclasses.dataclass
class Run:
    """The parts of a run that its checkpoints and evaluations need.

    measured: function that returns the predict function of an evaluation.
    decides_best: False for another evaluation of a finished run with changed settings.
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
    decides_best: bool = True

    def on_batch(self, done: int, total: int) -> None:
        """Called after each batch of an evaluation."""
        self.watchdog.beat("evaluation")

    def is_due(self, step: int) -> bool:
        """Whether `save_and_evaluate` is called after a step; the same on all processes."""
        return bool(self.preemption.agreed()) or self.config.train.saves_after(step)

    def save_and_evaluate(self, step: int, state: TrainState) -> bool:
        """Writes a checkpoint, and evaluates it if an evaluation is due.

        Returns:
            Whether the run ends here because config.train.patience is used up.

        Raises:
            Preempted: a signal asked the run to stop; the checkpoint is written.
        """
        self.watchdog.beat("checkpoint")
        metadata = checkpoint_metadata(self.config, self.categories)
        self.checkpoints.save(step, state, metadata)
        if signal := self.preemption.agreed(now=True):
            self.checkpoints.wait()
            self.log.message(f"{signal}: saved step {step}")
            raise Preempted(signal, everywhere=True)
        if not self.config.train.evaluates_after(step):
            return False
        if jax.process_count() > 1:
            self.checkpoints.wait()  # no process can finish it without the others
        # The checkpoint is saved: a signal may interrupt the evaluation.
        with self.preemption.deferred(False):
            evaluate_in_between(self, step, state)
        return self.is_over(step)

    def is_over(self, step: int) -> bool:
        """Whether early stopping ends the run after the evaluation of a step; logs it if so."""
        patience = self.config.train.patience
        if patience is None:
            return False
        best = from_first(f"best step at {step}", best_step(self.workdir))
        if not patience_is_used_up(self.config.train, step, best):
            return False
        self.log.message(
            f"stops early, after step {step}: no better evaluation since step {best} "
            f"(config.train.patience={patience})"
        )
        return True


def evaluate_in_between(run: Run, step: int, state: TrainState) -> None:
    """Evaluates the state of a step on config.evaluation.limit images; keeps it if it is the best.

    WORKDIR/best/ has the best checkpoint so far.
    """
    dataset = subsample(run.eval_set, run.config.evaluation.limit)
    keep_if_best(run, step, evaluate_state(run, step, state, dataset, tables=False))


def evaluate_at_end(run: Run, step: int, state: TrainState) -> Evaluation:
    """Evaluates the last state on all images; keeps it if it is the best.

    With config.evaluation.limit, the images of the other evaluations decide which checkpoint is
    best. With a moving average of the weights, the weights themselves are also evaluated and
    logged.
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
                "with the weights of the last step (eval_raw in metrics.jsonl)"
            )
    return found


def evaluate_state(
    run: Run, step: int, state: TrainState, dataset: Dataset, *, tables: bool
) -> Evaluation:
    """Evaluates the state of a step, and writes the results to the workdir."""
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
    decides = run.decides_best or best_step(run.workdir) is None
    if not (run.log.active and decides):
        return
    before = measured_otherwise(run.workdir, found.measured)
    if keep_best(run.workdir, step, found.summary, found.measured):
        other = f"; the one before was measured otherwise ({before})" if before else ""
        run.log.message(f"best so far, kept in {run.workdir / 'best'}{other}")


def make_up_evaluation(run: Run, step: int, state: TrainState) -> None:
    """Evaluates the restored step if the run ended between its checkpoint and its evaluation."""
    evaluated = from_first("evaluated", run.log.has_evaluation(step))
    if run.config.train.evaluates_after(step) and not evaluated:
        evaluate_in_between(run, step, state)


def checkpoint_metadata(config: Config, categories: Categories) -> dict[str, Any]:
    """Returns the JSON part of a checkpoint: config and classes."""
    return {
        "config": to_json(config),
        "names": list(categories.names),
        "ids": list(categories.ids),
    }
