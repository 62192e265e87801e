"""Contestant of sweep.py: the trials of a sweep one after the other, or a single run."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.contestants import serve, time_calls
from retinanet_jax.compilation import keep_compilations
from retinanet_jax.config import Config
from retinanet_jax.data.batch import DroppedBoxes
from retinanet_jax.evaluate import evaluate
from retinanet_jax.learner import make_learner
from retinanet_jax.logging import RunLog
from retinanet_jax.loop import Hooks, run_steps
from retinanet_jax.mesh import make_mesh
from retinanet_jax.run import train_and_evaluate
from retinanet_jax.shared import Shared, load_data_sets
from retinanet_jax.sweep.plan import FINISHED, read_plan
from retinanet_jax.sweep.trial import run_trial


def trials(folder: Path) -> Callable[[], None]:
    """A function that runs the next trial."""
    shared, left = Shared(), iter(read_plan(folder / "sweep"))

    def work() -> None:
        end = run_trial(next(left), shared)
        assert end.state == FINISHED, end.error

    return work


def single(folder: Path, number: int) -> Callable[[], None]:
    """A function that trains as trial `number` does; all that it calls is compiled already."""
    config = read_plan(folder / "sweep")[number].config()
    keep_compilations(config.data.cache_dir)
    shared = compiled(config, folder / f"compiled{number}")
    return lambda: train_and_evaluate(config, folder / f"single{number}", shared)


def compiled(config: Config, workdir: Path) -> Shared:
    """The functions of a run, each of which has been called."""
    shared, mesh = Shared(), make_mesh()
    train_set, eval_set = load_data_sets(config.data)
    programs = shared.programs(config, train_set.categories.num_classes, mesh)
    learner = make_learner(config, train_set.categories, mesh, print, programs)
    once = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1))
    nothing = Hooks(due=lambda step: False, after=lambda step, state: None)
    with RunLog(workdir, 0, 1) as log:
        state = run_steps(learner, train_set, once, mesh, log, nothing, DroppedBoxes())
    evaluate(learner.predict_fn, state.variables(), eval_set, config, mesh)
    return shared


if __name__ == "__main__":
    mode, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

    # What runs say does not belong among the answers.
    with contextlib.redirect_stdout(sys.stderr):
        work = trials(folder) if mode == "trials" else single(folder, number)

    def measured() -> dict[str, float]:
        with contextlib.redirect_stdout(sys.stderr):
            return time_calls(work)

    serve(measured)
