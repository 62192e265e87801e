"""Contestant of sweep.py: the trials of a sweep one after the other, or a single run."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.contestants import serve, time_calls
from retinanet_jax.config.settings import Config
from retinanet_jax.data.mix import load_datasets
from retinanet_jax.data.pipeline.batch import DroppedBoxes
from retinanet_jax.runtime.compilation_cache import keep_compilations
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.sweep.run_trial import run_trial
from retinanet_jax.sweep.trials import FINISHED, read_plan
from retinanet_jax.training.evaluation import evaluate
from retinanet_jax.training.loop import StepHooks, run_steps
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.run_log import RunLog
from retinanet_jax.training.setup import RunCache, make_setup
from retinanet_jax.training.validation_loss import MeasuredPrediction


def trials(folder: Path) -> Callable[[], None]:
    """A function that runs the next trial."""
    cache, left = RunCache(), iter(read_plan(folder / "sweep"))

    def work() -> None:
        end = run_trial(next(left), cache)
        assert end.state == FINISHED, end.error

    return work


def single(folder: Path, number: int) -> Callable[[], None]:
    """A function that trains as trial `number` does, with everything compiled in advance."""
    config = read_plan(folder / "sweep")[number].config()
    keep_compilations(config.data.cache_dir)
    cache = compiled(config, folder / f"compiled{number}")
    return lambda: train_and_evaluate(config, folder / f"single{number}", cache)


def compiled(config: Config, workdir: Path) -> RunCache:
    """The functions of a run, each called once and so compiled."""
    cache, mesh = RunCache(), make_mesh()
    train_set, eval_set = load_datasets(config.data)
    functions = cache.functions(config, train_set.categories.num_classes, mesh)
    setup = make_setup(config, train_set.categories, mesh, print, functions)
    once = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1))
    nothing = StepHooks(is_due=lambda step: False, save_and_evaluate=lambda step, state: None)
    with RunLog(workdir, 0, 1) as log:
        state = run_steps(setup, train_set, once, mesh, log, nothing, DroppedBoxes())
    measured = MeasuredPrediction(setup.measure_fn, setup.focal)
    evaluate(measured, state.variables(), eval_set, config, mesh)
    return cache


if __name__ == "__main__":
    mode, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

    # Standard output is for measurements only.
    with contextlib.redirect_stdout(sys.stderr):
        work = trials(folder) if mode == "trials" else single(folder, number)

    def measured() -> dict[str, float]:
        with contextlib.redirect_stdout(sys.stderr):
            return time_calls(work)

    serve(measured)
