"""Parses command lines with the real parsers, without the work behind them.

Reads a JSON list of [name, words] from stdin and writes a JSON list of [name, error] to stdout.
Each command is parsed in a forked process, because absl's flags are global.
"""

import argparse
import contextlib
import json
import os
import runpy
import sys
import traceback

from absl import app, flags

from retinanet_jax import main as runs
from retinanet_jax.cli import app as cli
from retinanet_jax.config.settings import from_config_dict
from retinanet_jax.reports.analysis import analyze_checkpoint as analyze
from retinanet_jax.reports.inspection import inspection_page as page
from retinanet_jax.sweep import command
from retinanet_jax.training import learning_rate_test as rates
from retinanet_jax.training.plan import chips

parse_args = argparse.ArgumentParser.parse_args


class Parsed(Exception):
    """The command line is valid; the work would follow."""


def parse_and_stop(parser, *arguments):
    parsed = parse_args(parser, *arguments)
    if parser.prog == "retinanet-jax":  # the subcommand's own parser comes next
        return parsed
    raise Parsed


def stop(*_, **__):
    raise Parsed


def parse_flags_and_stop(main, argv=None, flags_parser=None):
    rest = (flags_parser or flags.FLAGS)(argv or sys.argv)
    if main is runs.main:
        runs.check_flags(rest[1:])
    elif len(rest) > 1:
        raise ValueError(f"unknown arguments: {rest[1:]}")
    if runs.CONFIG.value is not None:
        from_config_dict(runs.CONFIG.value)
    raise Parsed


def replace_the_work() -> None:
    app.run = parse_flags_and_stop
    argparse.ArgumentParser.parse_args = parse_and_stop
    chips._check_installed = stop  # `plan` has read config and chip by then
    page.inspect_data = analyze.analyze_workdir = rates.learning_rate_test = stop
    # A sweep checks its trials before it writes the plan. The launcher depends on the machine.
    command.write_plan = command.read_plan = stop
    command._launcher = lambda *_: None
    for name in cli.COMMANDS.values():
        module = __import__(f"retinanet_jax.cli.{name}", fromlist=[name])
        if not getattr(module, "PASSES_ON", False):
            module.run = stop


def start(words: list[str]) -> None:
    """Starts a command as a shell does; a ValueError for an unknown program."""
    sys.argv = words  # ml_collections reads the fields that are set from there
    match words:
        case ["retinanet-jax", *rest] | ["python", "-m", "retinanet_jax", *rest]:
            cli.main(rest)
        case ["python", "-m", "retinanet_jax.main", *rest]:
            runs.run(["main", *rest])
        case ["python", script, *rest] if script.startswith("scripts/"):
            sys.argv = [script, *rest]
            sys.path.insert(0, os.path.dirname(script))
            runpy.run_path(script, run_name="__main__")
        case _:
            raise ValueError("unknown command")


def forked(work, words: list[str]) -> str:
    """Runs work(words) in a forked process; its output if it fails, else ''."""
    read_end, write_end = os.pipe()
    if child := os.fork():
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            output = pipe.read()
        _, status = os.waitpid(child, 0)
        return "" if status == 0 else output or f"ended with status {status}"
    os.dup2(write_end, 1)
    os.dup2(write_end, 2)
    code = 1
    try:
        work(words)
        code = 0
    except SystemExit as ended:
        code = 0 if ended.code in (0, None) else 1
        print(ended.code)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def parse(words: list[str]) -> None:
    """Starts a command whose work is replaced."""
    with contextlib.suppress(Parsed):
        start(words)
        raise ValueError("the command was run, not only parsed")


def answer(work) -> None:
    """Reads [name, words] of each command and writes [name, error] of those that fail."""
    given = json.load(sys.stdin)
    print(json.dumps([[name, error] for name, words in given if (error := forked(work, words))]))


if __name__ == "__main__":
    replace_the_work()
    answer(parse)
