"""RetinaNet in JAX: train a detector, evaluate it, and detect objects in images and videos.

retinanet-jax train --data=FOLDER --name=mine
retinanet-jax detect photo.jpg --model=runs/mine --out=found
retinanet-jax COMMAND --help
"""

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from retinanet_jax.runtime.garbage_collection import collect_rarely
from retinanet_jax.runtime.machine_memory import limit_arenas
from retinanet_jax.runtime.terminal import print_any_text
from retinanet_jax.runtime.wording import did_you_mean

# Modules of this package, each with add_arguments(parser), run(arguments), and a docstring whose
# first line is the help. They import JAX inside `run`, so that --help is fast. With
# PASSES_ON = True, arguments that the parser does not know are in arguments.passed_on.
COMMANDS = {
    "train": "train",
    "find_lr": "find_lr",
    "evaluate": "evaluate",
    "analyze": "analyze",
    "detect": "detect",
    "serve": "serve",
    "export": "export",
    "import": "import_weights",
    "weights": "weights",
    "inspect": "inspect_data",
    "prepare": "prepare_data",
    "sweep": "sweep",
    "report": "report",
    "plan": "plan",
    "doctor": "doctor",
}
# Names of other projects for the same.
ALIASES = {"val": "evaluate", "eval": "evaluate", "predict": "detect"}

EPILOG = """exit codes:
  0   done
  1   an error, with a one-line message; sweep: trials failed
  2   missing or unknown arguments
  3   detect: some inputs could not be read; all others are done
  75  train, sweep: stopped by a signal; the same command resumes"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments name, by default sys.argv."""
    collect_rarely()
    limit_arenas()
    print_any_text()
    parser = _parser("retinanet-jax", f"{__doc__}\ncommands:\n{_table()}", EPILOG)
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("command", metavar="COMMAND", help="one of the above")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see COMMAND --help")
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        sys.exit(2)
    given = parser.parse_args(argv)
    name = ALIASES.get(given.command, given.command)
    if name not in COMMANDS:
        hint = did_you_mean(given.command, [*COMMANDS, *ALIASES])
        hint = hint or f"write one of {', '.join(COMMANDS)}"
        parser.error(f"{given.command}: no such command; {hint}")
    module = importlib.import_module(f"{__package__}.{COMMANDS[name]}")
    command = _parser(f"retinanet-jax {name}", module.__doc__)
    module.add_arguments(command)
    arguments, unknown = command.parse_known_args(given.arguments)
    if unknown and not getattr(module, "PASSES_ON", False):
        flags = re.findall(r"--\w+", command.format_usage())
        hint = did_you_mean(unknown[0].partition("=")[0], flags)
        command.error("; ".join(filter(None, [f"unknown arguments: {' '.join(unknown)}", hint])))
    arguments.passed_on = unknown
    try:
        module.run(arguments)
    except Exception as error:
        from retinanet_jax.main import describe_error  # imports the whole package

        if (described := describe_error(error)) is None:
            raise
        message, code = described
        if code == 1:
            sys.exit(message)
        print(message, file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _parser(name: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        name,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --config.x must not match --config
    )


def _table() -> str:
    """A line for each command, from the docstring of its module, without importing it."""
    lines = []
    for name, module in COMMANDS.items():
        source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
        first = ast.get_docstring(ast.parse(source)).splitlines()[0]
        lines.append(f"  {name:10}{first}")
    lines += [f"  {alias:10}alias of {name}" for alias, name in ALIASES.items()]
    return "\n".join(lines)


def _version() -> str:
    """Versions of this package and of JAX, without importing it."""
    versions = []
    for name in ("retinanet_jax", "jax"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:  # a clone that is not installed
            versions.append(f"{name}, not installed")
    return ", ".join(versions)
