"""A trial of a sweep, after the first, compared with a single run without its compilation.

The trials differ in gamma and alpha and run one after the other in one process. Each is compared
with a run of the same config in its own process, whose clock starts when its functions are
compiled. Both train, save, evaluate and draw.
"""

import os
import tempfile
from pathlib import Path

from benchmarks.contestants import Contestant
from benchmarks.rows import Row, compare, measure_and_unit, processor, versions
from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.sweep.grid import grid_axis
from retinanet_jax.sweep.trials import plan_trials, write_plan

GRID = ("loss.gamma=0,0.5,1,2,5", "loss.alpha=.25,.5,.75")


def add_arguments(parser) -> None:
    parser.add_argument("--config", default="experiments/shapes.py:tiny", help="what to train")
    parser.add_argument("--cores", type=int, default=1, help="how many cores to use")


def run(arguments) -> list[Row]:
    trials, single = [], []
    with tempfile.TemporaryDirectory() as folder:
        count = planned(arguments.config, Path(folder))
        rounds = range(1, 1 + min(arguments.rounds, count - 1))
        with _start("trials", folder, 0, arguments) as sweep:
            sweep.round()  # the first one compiles
            for number in rounds:
                trials.append(sweep.round())
                with _start("single", folder, number, arguments) as one:
                    single.append(one.round())
    measure, unit = measure_and_unit(arguments.cores, "cpu")
    return [
        compare(
            f"{arguments.config}, a trial of a sweep: {unit}",
            [one[measure] for one in trials],
            "single run without compilation",
            [one[measure] for one in single],
            memory_mb=max(one["memory_mb"] for one in trials),
            peer_memory_mb=max(one["memory_mb"] for one in single),
            device=processor(),
            versions=versions("jaxlib", "flax", "orbax-checkpoint"),
        )
    ]


def planned(config: str, folder: Path) -> int:
    """Plans the sweep of both; returns the number of trials."""
    tree = load_experiment(config)
    tree.data.cache_dir = os.fspath(folder / "cache")
    axes = [grid_axis(text, tree) for text in GRID]
    return len(write_plan(plan_trials(tree, axes, folder / "sweep"), folder / "sweep"))


def _start(mode: str, folder: str, number: int, arguments) -> Contestant:
    cores = range(arguments.cores)
    return Contestant("sweep_ours", mode, folder, str(number), cores=cores)
