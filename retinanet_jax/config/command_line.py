"""Rewrites a command line for the parser of ml_collections: --config first, one word per field."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from retinanet_jax.config import run_changes
from retinanet_jax.config.experiment_files import find_experiment, load_experiment
from retinanet_jax.config.settings import ConfigError, default_config
from retinanet_jax.config.short_settings import expand_short_flags

RUN_CHANGES = run_changes.__file__


def written_out(argv: Sequence[str], *, of_run: bool) -> tuple[list[str], dict[str, str]]:
    """Returns the command line with --config first and without short flags, and their values.

    Args:
        argv: program and arguments.
        of_run: whether the settings without --config are those of a run; see run_changes.py.

    Raises:
        ConfigError: as in `expand_short_flags`, or there is no such experiment.
    """
    words = list(argv)
    if of_run and not any(re.match(r"--?config(=|$)", word) for word in words):
        words.insert(1, f"--config={RUN_CHANGES}")
        if any(re.match(r"--?data(=|$)", word) for word in words):
            words.insert(2, "--config.data.name=folder")
    words, short = expand_short_flags(words)
    return with_config_file(with_joined_values(words)), short


def with_joined_values(argv: list[str]) -> list[str]:
    """Arguments with `--config.FIELD VALUE` as one word, --config.FIELD=VALUE.

    ml_collections takes a field that also accepts 'auto' or 'none' for a switch without a value.
    """
    words: list[str] = []
    for word in argv:
        field = words[-1] if words else ""
        if re.fullmatch(r"--?config(\.\w+)+", field) and not word.startswith("--"):
            words[-1] = f"{field}={word}"
        else:
            words.append(word)
    return words


def with_config_file(argv: list[str]) -> list[str]:
    """Arguments with the file of an experiment in place of its name, first; checks that it loads.

    ml_collections reads --config before the fields that are set.
    """
    files, words, rest = [], argv[:1], iter(argv[1:])
    for word in rest:
        flag, equals, location = word.partition("=")
        if flag in ("--config", "-config"):
            location = location if equals else next(rest, "")
            path, variant = find_experiment(location)
            if not variant and path.name == "folder.py" and "--coordinator" in " ".join(argv):
                raise ConfigError(
                    f"--config={location}: with --coordinator, add :resnet50 or :small"
                )
            load_experiment(location)
            files.append(f"--config={path}:{variant}" if variant else f"--config={path}")
        else:
            words.append(word)
    return words[:1] + files + words[1:]


def explain_flag(name: str, flags: Iterable[str]) -> str:
    """Returns a hint for a flag that does not exist: a similar flag or config field."""
    if name.startswith("config."):
        return "; set --config=EXPERIMENT as well"
    meanings = [(flag, flag) for flag in flags]
    for section, values in default_config().to_dict().items():
        for field in values if isinstance(values, dict) else ():
            whole = f"config.{section}.{field}"
            meanings += [(field, whole), (f"{section}.{field}", whole)]
    close = difflib.get_close_matches(name, [written for written, _ in meanings], n=1)
    meant = [f"--{meaning}" for written, meaning in meanings if written in close]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def explain_words(words: Sequence[str]) -> str:
    """Returns a hint for words that are not flags: a folder or an experiment."""
    if ".py" in words[0]:
        return f"; did you mean --config={words[0]}?"
    if Path(words[0]).expanduser().exists():
        return f"; did you mean --data={words[0]}?"
    return ""


def explain_value(message: str) -> str:
    """Returns the parser's message about an invalid value, with what to write for a switch."""
    match = re.fullmatch(r"flag (--\S+?)=.*Non-boolean argument to boolean flag', (.*)\)", message)
    return f"{match[1]}: {match[2]} is invalid; write True or False" if match else message
