"""Trains or evaluates a RetinaNet; the command line of one run.

    python -m retinanet_jax.main --data=FOLDER --epochs=20
    python -m retinanet_jax.main --config=shapes
    python -m retinanet_jax.main --config=experiments/coco.py:r101 --workdir=runs/r101
    python -m retinanet_jax.main --workdir=runs/shapes --mode=evaluate --flip --scales=1,1.5
    python -m retinanet_jax.main --config=shapes --replay=120

--config is an experiment file or the name of one in experiments/, with a variant after a colon; by
default it is folder, the experiment for --data. Any field can be set:
--config.optimizer.learning_rate=0.02. Short flags: --data, --epochs, --steps, --batch_size,
--image_size, --weights, --lr (config/short_settings.py). --workdir is runs/NAME by default: of
--name, of the folder of --data, or of the experiment. An evaluation without --config starts from
the settings of the run. It uses the best checkpoint unless --step names another; --flip, --scales,
--tile, --overlap and --merge are those of `retinanet-jax detect`. --replay repeats one step of a
run and reports each part of its loss.

A run of several processes, on one or several hosts: start the same command for each process. srun,
mpirun, a Kubernetes Job and TPU VMs connect them; elsewhere give the address of process 0:

    python -m retinanet_jax.main ... --coordinator=HOST:PORT --num_processes=4 --process_id=0

Exit codes: 0 done; 1 an error with a one-line message; 2 missing or unknown arguments; 75 stopped
by SIGTERM or SIGINT, the same command resumes. A second signal ends the process at once.
"""

import logging as std_logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if not __package__:  # `python retinanet_jax/main.py` puts retinanet_jax/ itself on the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

if __name__ == "__main__":  # before the other imports
    from retinanet_jax.runtime.garbage_collection import collect_rarely
    from retinanet_jax.runtime.machine_memory import limit_arenas

    collect_rarely()
    limit_arenas()

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from retinanet_jax.config.command_line import (
    RUN_CHANGES,
    explain_flag,
    explain_value,
    explain_words,
    written_out,
)
from retinanet_jax.config.experiment_files import (
    LOADED,
    experiment_name,
    explain_unknown_field,
)
from retinanet_jax.config.run_changes import cache_of
from retinanet_jax.config.settings import Config, ConfigError, UsageError, from_config_dict
from retinanet_jax.config.short_settings import SHORT_SETTINGS, run_name
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.pipeline.prefetch import ExampleError
from retinanet_jax.data.store.prepare_release import download_dataset
from retinanet_jax.runtime.checkpoints import CheckpointError
from retinanet_jax.runtime.compilation_cache import keep_compilations
from retinanet_jax.runtime.download import DownloadError
from retinanet_jax.runtime.find_processes import Launch, ProcessesError
from retinanet_jax.runtime.preemption import EXIT_CODE, Preempted
from retinanet_jax.runtime.processes import joined
from retinanet_jax.runtime.remote_folder import is_remote
from retinanet_jax.runtime.terminal import print_any_text
from retinanet_jax.runtime.traced_programs import keep_traced_programs
from retinanet_jax.runtime.user_folders import expand_user
from retinanet_jax.runtime.workdir import WorkdirError
from retinanet_jax.runtime.workdir_download import local_workdir
from retinanet_jax.training.evaluation_flags import evaluation_options, flags_in_use
from retinanet_jax.training.meter import DivergenceError
from retinanet_jax.training.replay import replay_step
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.workdir_evaluation import evaluate_workdir
from retinanet_jax.weights.weights_error import WeightsError

# The arguments being parsed. config_flags finds --config.FIELD in them; by default in sys.argv.
_ARGUMENTS: list[str] = []
_SHORT: dict[str, str] = {}  # the short flags among them
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Experiment: a name such as coco, or a file, with :VARIANT if needed.",
    sys_argv=_ARGUMENTS,
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder for checkpoints, logs and images, or gs://BUCKET/NAME; default: runs/ and the name of "
    "the experiment.",
)
NAME = flags.DEFINE_string("name", None, "Name of the run; sets --workdir=runs/NAME.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint to evaluate; default: the best.")
REPLAY = flags.DEFINE_integer("replay", None, "Step of the run to repeat and report on.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, for a run of several processes."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes; --num_processes=1 alone ignores the launcher."
)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Index of this process, from 0.")
COORDINATOR_TIMEOUT = flags.DEFINE_integer(
    "coordinator_timeout", 300, "Seconds to wait for all processes to connect."
)

DOWNLOAD = flags.DEFINE_bool(
    "download", False, "Download and prepare COCO or Pascal VOC if it is not in config.data.root."
)

# Errors that the user can fix: a line, no traceback.
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
    "To use less memory, set a smaller --config.train.batch_size or "
    "--config.evaluation.batch_size, smaller images (--config.pipeline.min_side and max_side), "
    "--config.model.dtype=bfloat16 or --config.model.remat=all."
)


def describe_error(error: BaseException) -> tuple[str, int] | None:
    """Message and exit code for an expected error; None for an error of the program."""
    if isinstance(error, Preempted):
        return f"stopped by {error}; the same command resumes", EXIT_CODE
    if isinstance(error, UsageError):
        return str(error), 2
    if isinstance(error, EXPECTED):
        return f"{type(error).__name__}: {error}", 1
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return f"{str(error).splitlines()[0]}\n{LESS_MEMORY}", 1
    return None


def main(argv: list[str]) -> None:
    """Trains, evaluates or replays a step, as the flags say."""
    logging.set_verbosity(logging.WARNING)  # Orbax logs every action at INFO
    plain = std_logging.Formatter("warning: %(message)s")  # without time, process and line
    logging.get_absl_handler().setFormatter(plain)
    try:
        check_flags(argv[1:])
        config = given_config()
        if "data" in _SHORT and isinstance(config, Config) and config.data.name == "shapes":
            raise ConfigError("--data: 'shapes' draws its own images; leave out --config")
        launch = Launch(
            COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, COORDINATOR_TIMEOUT.value
        )
        with joined(launch, describe_error):
            workdir = choose_workdir()
            keep_programs(config, workdir)
            if DOWNLOAD.value and isinstance(config, Config):
                download_dataset(config.data.name, config.data.root)
            if REPLAY.value is not None:
                with local_workdir(workdir) as folder:
                    replay_step(config, folder, REPLAY.value)
            elif MODE.value == "evaluate":
                evaluate_workdir(config, workdir, STEP.value, **evaluation_options())
            else:
                train_and_evaluate(config, workdir)
    except (Preempted, Exception) as error:
        if (described := describe_error(error)) is None:
            raise
        message, code = described
        print(message, file=sys.stderr)
        sys.exit(code)


def check_flags(rest: list[str]) -> None:
    """Raises UsageError for a missing flag and words in `rest`, ConfigError for a wrong flag."""
    if rest:
        raise UsageError(f"unknown arguments: {' '.join(rest)}{explain_words(rest)}")
    evaluates = MODE.value == "evaluate" and REPLAY.value is None
    if not evaluates and (CONFIG.value is None or is_of_run()):
        raise UsageError(
            "--data or --config is missing: name a folder, or an experiment such as shapes"
        )
    if not evaluates and (names := flags_in_use()):
        raise ConfigError(f"--{names[0]}: only applies to --mode=evaluate; leave it out")
    if WORKDIR.value is not None and NAME.value is not None:
        raise ConfigError("--workdir and --name: set only one of them")
    if is_of_run() and WORKDIR.value is None and NAME.value is None and "data" not in _SHORT:
        raise UsageError("--workdir is missing: name the folder of the run, --workdir=runs/NAME")


def is_of_run() -> bool:
    """Whether the settings are those of a run, because an evaluation has no --config."""
    return config_flags.get_config_filename(flags.FLAGS["config"]) == RUN_CHANGES


def given_config() -> Config | dict[str, Any]:
    """The config of the flags; without --config, the fields to change in that of a run."""
    if is_of_run():
        return config_flags.get_override_values(flags.FLAGS["config"])
    return from_config_dict(CONFIG.value)


def keep_programs(config: Config | Mapping[str, Any], workdir: str | Path) -> None:
    """Makes this process keep programs, compiled and traced, in the cache of the run."""
    shared = None if is_remote(workdir) else workdir
    keep_traced_programs(keep_compilations(cache_of(config), shared), LOADED)


def choose_workdir() -> str | Path:
    """--workdir, a folder or an address, or runs/NAME: of --name, --data or the experiment."""
    if WORKDIR.value is not None:
        return WORKDIR.value if is_remote(WORKDIR.value) else expand_user(WORKDIR.value)
    if NAME.value is not None:
        name = NAME.value
    elif "data" in _SHORT:
        name = run_name(_SHORT["data"])
    else:
        name = experiment_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    workdir = Path("runs") / name
    if jax.process_index() == 0:
        print(f"workdir: {workdir}")
    return workdir


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser; its errors end the process with a line that says what to write."""
    try:
        return read_flags(
            argv, of_run=re.search(r" --?mode[= ]evaluate\b", " ".join(argv)) is not None
        )
    except ConfigError as error:
        message, code = describe_error(error)
        print(message, file=sys.stderr)
        sys.exit(code)


def read_flags(argv: list[str], *, of_run: bool = False) -> list[str]:
    """Parses flags, with names of experiments; returns the program and words that are not flags.

    Args:
        argv: program and arguments.
        of_run: whether the settings without --config are those of a run.

    Raises:
        UsageError: a flag does not exist.
        ConfigError: an experiment or a field does not exist, or a value is invalid.
    """
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)  # of an earlier command in this process
    words, short = written_out(argv, of_run=of_run)
    _ARGUMENTS[:] = words
    _SHORT.clear()
    _SHORT.update(short)
    try:
        return flags.FLAGS(list(_ARGUMENTS))
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        hint = explain_flag(name, [*SHORT_SETTINGS, *own_flags()])
        raise UsageError(f"--{name}: no such flag{hint}") from error
    except flags.Error as error:
        raise ConfigError(explain_value(str(error))) from error
    except (AttributeError, KeyError):
        fields = [a.split("=")[0].removeprefix("--config.") for a in argv if "--config." in a]
        for field in fields:
            problem = explain_unknown_field(field)
            if "no such field" in problem or "has no field" in problem:
                raise ConfigError(problem) from None
        raise


def own_flags() -> list[str]:
    """The flags of this package, without absl's, which also set up tests and debuggers."""
    modules = flags.FLAGS.flags_by_module_dict().items()
    of_absl = {flag.name for name, found in modules if name.startswith("absl.") for flag in found}
    return [name for name in flags.FLAGS if name not in of_absl]


def run(argv: list[str] | None = None) -> None:
    """Entry point; argv[0] is the name of the program, by default sys.argv."""
    print_any_text()
    app.run(main, argv=argv, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
