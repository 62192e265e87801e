"""Command line: trains or evaluates as a config file says.

    python -m retinanet_jax.main --config=experiments/shapes.py --workdir=/tmp/shapes
    python -m retinanet_jax.main --config=experiments/shapes.py --workdir=/tmp/shapes \\
        --mode=evaluate

Any field of the config can be set on the command line: --config.optimizer.learning_rate=0.02

Exit codes: 0 done; 1 a mistake that is told; 75 stopped by SIGTERM or SIGINT, the same command goes
on; by a second signal, that signal's.
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from retinanet_jax.checkpoint import CheckpointError
from retinanet_jax.compilation import keep_compilations
from retinanet_jax.config import (
    ConfigError,
    from_config_dict,
)
from retinanet_jax.data.report import DataError
from retinanet_jax.data.stream import ExampleError
from retinanet_jax.download import DownloadError
from retinanet_jax.experiment import explain_unknown_field, load_experiment
from retinanet_jax.loop import DivergenceError
from retinanet_jax.preemption import EXIT_CODE, Preempted
from retinanet_jax.run import evaluate_workdir, train_and_evaluate
from retinanet_jax.weights.errors import WeightsError
from retinanet_jax.workdir import WorkdirError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment file, such as experiments/shapes.py, or with a variant, :small."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, logs and pictures are kept.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")

# What a person can mend: told in a line, without a traceback.
EXPECTED = (
    ConfigError,
    DataError,
    WeightsError,
    WorkdirError,
    CheckpointError,
    DivergenceError,
    DownloadError,
    ExampleError,
)


def main(argv: list[str]) -> None:
    """Runs what the flags say; see the module's docstring."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    # Orbax tells every move at the level of information.
    logging.set_verbosity(logging.WARNING)
    try:
        config = from_config_dict(CONFIG.value)
        keep_compilations(config.data.cache_dir)
        work = train_and_evaluate if MODE.value == "train" else evaluate_workdir
        work(config, Path(WORKDIR.value).expanduser())
    except EXPECTED as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Preempted as stopped:
        print(f"stopped by {stopped}; the same command goes on", file=sys.stderr)
        sys.exit(EXIT_CODE)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with the mistakes in --config told in words instead of a traceback."""
    try:
        for argument in argv:
            if argument.startswith(("--config=", "-config=")):
                load_experiment(argument.partition("=")[2])
        return app.parse_flags_with_usage(argv)
    except ConfigError as error:
        sys.exit(f"ConfigError: {error}")
    except (AttributeError, KeyError):
        fields = [a.split("=")[0].removeprefix("--config.") for a in argv if "--config." in a]
        for field in fields:
            problem = explain_unknown_field(field)
            if "no such field" in problem or "has no field" in problem:
                sys.exit(f"ConfigError: {problem}")
        raise


def run(argv: list[str] | None = None) -> None:
    """The entry point; the first argument is the program's name, by default all are sys.argv."""
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, argv=argv, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
