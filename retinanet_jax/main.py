"""Command line: trains or evaluates as a config file says.

    python -m retinanet_jax.main --config=experiments/shapes.py --workdir=runs/shapes
    python -m retinanet_jax.main --workdir=runs/shapes --mode=evaluate
    python -m retinanet_jax.main --config=experiments/shapes.py --workdir=runs/shapes --replay=120

The last runs step 120 alone again and reports what each part of its loss was; see replay.py.
Any field of the config can be set on the command line: --config.optimizer.learning_rate=0.02
An evaluation without --config takes that of the run.

On several hosts, or in several processes on one, the same command is started for each of them:
under srun, mpirun, in a Kubernetes Job and on a TPU VM as it is, elsewhere with where process 0 is:

    python -m retinanet_jax.main ... --coordinator=HOST:PORT --num_processes=4 --process_id=0

Exit codes: 0 done; 1 a mistake that is told; 75 stopped by SIGTERM or SIGINT, the same command goes
on; by a second signal, that signal's.
"""

import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from retinanet_jax.config.experiment_files import (
    explain_flag,
    explain_unknown_field,
    load_experiment,
)
from retinanet_jax.config.sections import DataConfig
from retinanet_jax.config.settings import Config, ConfigError, from_config_dict
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.pipeline.stream import ExampleError
from retinanet_jax.runtime.checkpoints import CheckpointError
from retinanet_jax.runtime.compilation_cache import keep_compilations
from retinanet_jax.runtime.download import DownloadError
from retinanet_jax.runtime.launch import Launch, ProcessesError
from retinanet_jax.runtime.preemption import EXIT_CODE, Preempted
from retinanet_jax.runtime.processes import joined
from retinanet_jax.runtime.workdir import WorkdirError
from retinanet_jax.training.loop import DivergenceError
from retinanet_jax.training.replay import replay_step
from retinanet_jax.training.run import evaluate_workdir, train_and_evaluate
from retinanet_jax.weights.weights_error import WeightsError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment file, such as experiments/shapes.py, or with a variant, :small."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, logs and images are kept.")
REPLAY = flags.DEFINE_integer("replay", None, "Number of a step to run again and report on.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes; 1 alone: does not ask the launcher."
)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
COORDINATOR_TIMEOUT = flags.DEFINE_integer(
    "coordinator_timeout", 300, "Seconds in which all processes have to be there."
)
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")

# What a person can fix: told in a line, without a traceback.
EXPECTED = (
    ConfigError,
    DataError,
    ExampleError,
    WeightsError,
    WorkdirError,
    CheckpointError,
    DivergenceError,
    ProcessesError,
    DownloadError,
)

LESS_MEMORY = (
    "Less is needed with a smaller --config.train.batch_size or --config.evaluation.batch_size, "
    "smaller images (--config.pipeline.min_side and max_side), --config.model.dtype=bfloat16 or "
    "--config.model.remat=all."
)


def tell(error: BaseException) -> tuple[str, int] | None:
    """The words and the exit code for what is no error of the program; None for what is."""
    if isinstance(error, Preempted):
        return f"stopped by {error}; the same command goes on", EXIT_CODE
    if isinstance(error, EXPECTED):
        return f"{type(error).__name__}: {error}", 1
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return f"{str(error).splitlines()[0]}\n{LESS_MEMORY}", 1
    return None


def main(argv: list[str]) -> None:
    """Runs what the flags say; see the module's docstring."""
    check_flags(argv[1:])
    # Orbax tells every move at the level of information.
    logging.set_verbosity(logging.WARNING)
    try:
        config = from_config_dict(CONFIG.value) if CONFIG.value is not None else None
        launch = Launch(
            COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, COORDINATOR_TIMEOUT.value
        )
        with joined(launch, tell):
            keep_compilations(config.data.cache_dir if config else DataConfig.cache_dir)
            work(config, Path(WORKDIR.value).expanduser())
    except (Preempted, Exception) as error:
        if (told := tell(error)) is None:
            raise
        words, code = told
        print(words, file=sys.stderr)
        sys.exit(code)


def check_flags(rest: list[str]) -> None:
    """Ends the program where a flag is missing, or words are left (`rest`) that are no flags."""
    if rest:
        hint = f"; did you mean --config={rest[0]}?" if ".py" in rest[0] else ""
        sys.exit(f"unknown arguments: {' '.join(rest)}{hint}")
    if CONFIG.value is None and (MODE.value != "evaluate" or REPLAY.value is not None):
        sys.exit("--config is missing: name an experiment file, --config=experiments/shapes.py")
    if WORKDIR.value is None:
        sys.exit("--workdir is missing: name the folder of the run, --workdir=runs/NAME")


def work(config: Config | None, workdir: Path) -> None:
    """What --replay or --mode asks for."""
    if REPLAY.value is not None:
        replay_step(config, workdir, REPLAY.value)
    elif MODE.value == "evaluate":
        evaluate_workdir(config, workdir)
    else:
        train_and_evaluate(config, workdir)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with mistakes told in words that say what to write."""
    try:
        for argument in argv:
            if argument.startswith(("--config=", "-config=")):
                load_experiment(argument.partition("=")[2])
        return flags.FLAGS(argv)
    except ConfigError as error:
        sys.exit(f"ConfigError: {error}")
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        sys.exit(f"--{name}: there is no such flag{explain_flag(name, flags.FLAGS)}")
    except flags.Error as error:
        sys.exit(str(error))
    except (AttributeError, KeyError):
        fields = [a.split("=")[0].removeprefix("--config.") for a in argv if "--config." in a]
        for field in fields:
            problem = explain_unknown_field(field)
            if "no such field" in problem or "has no field" in problem:
                sys.exit(f"ConfigError: {problem}")
        raise


def run(argv: list[str] | None = None) -> None:
    """The entry point; the first argument is the program's name, by default all are sys.argv."""
    app.run(main, argv=argv, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
