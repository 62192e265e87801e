"""Parses command lines by the real parsers and does nothing else; what is wrong goes to stdout.

A JSON list of [name, words] comes on stdin, a JSON list of [name, complaint] goes out. Each command
is parsed in a process of its own, forked when all is imported: absl's flags are global.
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

parse_args = argparse.ArgumentParser.parse_args


class Parsed(Exception):
    """The command line is good; what would follow is the work."""


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
    page.inspect_data = analyze.analyze_workdir = stop
    # The trials of a sweep are planned, and so checked, before the plan is written. Where they
    # would run depends on the machine.
    command.write_plan = command.read_plan = stop
    command._launcher = lambda *_: None
    for name in cli.COMMANDS.values():
        module = __import__(f"retinanet_jax.cli.{name}", fromlist=[name])
        if not getattr(module, "PASSES_ON", False):
            module.run = stop


def start(words: list[str]) -> None:
    """As a shell would start it; for what this knows no way to start it is a ValueError."""
    sys.argv = words  # ml_collections looks there for the fields that are set
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
            raise ValueError("no command that is known here")


def forked(work, words: list[str]) -> str:
    """'' if work(words) succeeds in a forked process, else what it said."""
    read_end, write_end = os.pipe()
    if child := os.fork():
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        return "" if status == 0 else said or f"ended with status {status}"
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
    """Starts a command whose work was replaced."""
    with contextlib.suppress(Parsed):
        start(words)
        raise ValueError("it was not parsed, but run")


def answer(work) -> None:
    """Reads [name, words] and writes [name, complaint], where there is one."""
    given = json.load(sys.stdin)
    print(json.dumps([[name, said] for name, words in given if (said := forked(work, words))]))


if __name__ == "__main__":
    replace_the_work()
    answer(parse)
