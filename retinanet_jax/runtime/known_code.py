"""Whether a process runs no code but code that the key of a stored program shows.

Code of a user can change any program: a loss under a name that was there before, a backbone that
reads a file or the environment, a replaced function. No key shows all of that, so one rule holds:
a process that has run such code neither reads nor writes programs.
"""

import ast
import functools
import os
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent.parent
_OWN = _PACKAGE.name
_SITE = f"{os.sep}site-packages{os.sep}"

VERSIONED = ("jax", "jaxlib", "flax", "optax", "numpy")
"""Packages whose functions are part of programs; the key of a program has their versions."""
_NOT_IN_PROGRAMS = ("safetensors",)  # reads weights

_SETTINGS = {
    "ml_collections": ("ConfigDict",),
    f"{_OWN}.config.experiment_files": ("choose_variant", "load_experiment"),
    f"{_OWN}.config.paper_base": ("base_config",),
    f"{_OWN}.config.recipes": ("RECIPES", "with_recipe"),
    f"{_OWN}.config.settings": ("default_config",),
    f"{_OWN}.runtime.accelerator": ("has_accelerator",),
}
"""What an experiment may import to set fields; nothing in it leads to code of programs."""
_LEADS_ANYWHERE = ("compile", "eval", "exec", "getattr", "globals", "setattr", "vars")


def runs_known_code(experiments: Iterable[Path]) -> bool:
    """Whether only this package, its commands, installed packages and plain experiments have run.

    Args:
        experiments: all experiment files that this process has loaded, absolute.
    """
    experiments = set(experiments)
    return (
        not os.environ.get("RETINANET_JAX_IMPORT")
        and _is_command(getattr(sys.modules.get("__main__"), "__file__", None))
        and all(map(only_sets_fields, experiments))
        and all(_is_known(file, experiments) for file in _files_of_modules())
        and all(map(_is_of_programs, functions_in_package()))
    )


def only_sets_fields(path: Path) -> bool:
    """Whether an experiment file does nothing but set fields, all of which are in a key."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return False
    return all(map(_is_plain, ast.walk(tree)))


def _is_plain(node: ast.AST) -> bool:
    match node:
        case ast.Import():
            return False
        case ast.ImportFrom(module=module, names=names):
            return all(alias.name in _SETTINGS.get(module or "", ()) for alias in names)
        case ast.Name(id=name):
            return not name.startswith("__") and name not in _LEADS_ANYWHERE
        case ast.Attribute(attr=name):
            return not name.startswith("__")
    return True


def _is_command(file: str | None) -> bool:
    """Whether __main__ is a module of this package or `retinanet-jax`; a script may do anything."""
    if file is None:  # python -c, a notebook
        return False
    script = os.path.join(sysconfig.get_path("scripts"), "retinanet-jax")
    return file == script or file.startswith(f"{_PACKAGE}{os.sep}")


def _files_of_modules() -> Iterator[str]:
    for name, module in tuple(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if name != "__main__" and file is not None:
            yield file


def _is_known(file: str, experiments: set[Path]) -> bool:
    known = _SITE in file or file.startswith(_folders())
    return known or Path(file).resolve() in experiments


def _is_of_programs(file: str) -> bool:
    """Whether the key of a program shows the code of this file's functions."""
    _, installed, inside = file.rpartition(_SITE)
    if installed:
        return inside.split(os.sep)[0] in (*VERSIONED, *_NOT_IN_PROGRAMS, _OWN)
    return file.startswith(("<frozen ", *_folders()))


@functools.cache
def _folders() -> tuple[str, ...]:
    """Of this package and of Python."""
    folders = sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), _PACKAGE
    return tuple(f"{folder}{os.sep}" for folder in folders)


def functions_in_package() -> set[str]:
    """The files of all functions in the modules of this package and in their tables."""
    found: set[str] = set()
    for name, module in tuple(sys.modules.items()):
        if name.partition(".")[0] == _OWN:
            for attribute, value in tuple(vars(module).items()):
                if not attribute.startswith("__"):
                    found.update(_files_of(value, 4))
    return found


def _files_of(value: Any, depth: int) -> Iterator[str]:
    """The files of a function, and of those in a table, a tuple, a partial or a closure."""
    inner: Iterable[Any] = ()
    if isinstance(value, types.FunctionType):
        yield value.__code__.co_filename
        inner = _contents(value.__closure__ or ())
    elif isinstance(value, functools.partial):
        inner = value.func, *value.args, *value.keywords.values()
    elif isinstance(value, dict):
        inner = tuple(value.values())
    elif isinstance(value, tuple | list):
        inner = tuple(value)
    elif (wrapped := getattr(value, "__wrapped__", None)) is not None:
        inner = (wrapped,)
    for part in inner if depth else ():
        yield from _files_of(part, depth - 1)


def _contents(cells: Iterable[types.CellType]) -> Iterator[Any]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:  # not yet assigned
            continue
