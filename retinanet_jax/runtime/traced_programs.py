"""Traced programs on disk: a second start neither traces nor lowers.

JAX's compilation cache finds machine code by the program, so a function has to be traced and
lowered before. This module finds the program, which is StableHLO, by what it is made from: code,
versions, settings, arguments. The machine code stays in JAX's cache alone.

Only commands store programs, and only while no code of the user has run (known_code.py): it may
have replaced functions of this package, or added some, which the key of a program would not show.
"""

import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from absl import logging

from retinanet_jax.runtime.known_code import VERSIONED, runs_known_code
from retinanet_jax.runtime.workdir import write_whole

MAX_FILES = 100  # the least recently used go first; each has .1 to 1 MB
_SUFFIX = ".stablehlo"
_PACKAGE = Path(__file__).parent.parent
_folder: Path | None = None
_experiments: Iterable[Path] = ()


def keep_traced_programs(folder: Path | None, experiments: Iterable[Path] = ()) -> None:
    """Makes `stored` keep programs in FOLDER/traced, if this process runs no code but known one.

    Args:
        folder: to which the user's processes alone write, since the programs in it are run; from
            `keep_compilations`. None: no programs are kept, as at the start.
        experiments: all experiment files that this process has loaded, now or later.
    """
    global _folder, _experiments
    _experiments = experiments
    kept = folder and len(jax.devices()) == 1 and runs_known_code(experiments)
    _folder = folder / "traced" if kept else None


def stored(
    compiled: Callable,
    function: Callable,
    description: str,
    *,
    pack: Callable[[Any], Any],
    unpack: Callable[[tuple, Any], Any],
    donates_first: bool = False,
    **options: Any,
) -> Callable:
    """`compiled`; or in a process that keeps programs, the same function from disk.

    The results are equal to the last bit, since the same program runs. Without a usable file the
    function is traced, and the file is written.

    Args:
        compiled: `jax.jit(function)`, with the options below.
        function: of pytrees of arrays.
        description: a name, and all that `function` depends on beside its arguments and code.
        pack: from the results to tuples, lists and dicts of arrays alone.
        unpack: from (arguments, packed results) to the results.
        donates_first: whether the first argument is used up.
        options: of `jax.jit`; out_shardings are those of the packed results.
    """
    if _folder is None:
        return compiled
    parts = description, pack, unpack, donates_first, options
    return _StoredFunction(_folder, compiled, function, *parts)


class _StoredFunction:
    def __init__(
        self,
        folder: Path,
        compiled: Callable,
        function: Callable,
        description: str,
        pack: Callable[[Any], Any],
        unpack: Callable[[tuple, Any], Any],
        donates_first: bool,
        options: dict[str, Any],
    ):
        self._folder, self._compiled, self._function = folder, compiled, function
        self._description, self._pack, self._unpack = description, pack, unpack
        self._donates_first, self._options = donates_first, options
        self._programs: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        program = self._program(arguments, leaves, tree)
        if program is None:
            return self._compiled(*arguments)
        return self._unpack(arguments, program(*leaves))

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """As of a function of `jax.jit`; also for shapes with shardings."""
        leaves, tree = jax.tree.flatten(arguments)
        program = self._program(arguments, leaves, tree)
        return self._compiled.lower(*arguments) if program is None else program.lower(*leaves)

    def _program(self, arguments: tuple, leaves: list, tree: Any) -> Any:
        """The function of leaves for such arguments; None: it is not kept."""
        kind = tree, tuple(map(_kind, leaves))
        with self._lock:
            if kind not in self._programs:
                self._programs[kind] = self._find(arguments, leaves, tree)
            return self._programs[kind]

    def _find(self, arguments: tuple, leaves: list, tree: Any) -> Any:
        if not runs_known_code(_experiments):  # again: the user's code may have run since
            return None
        donated = len(jax.tree.leaves(arguments[0])) if self._donates_first else 0
        jit = functools.partial(jax.jit, donate_argnums=tuple(range(donated)), **self._options)

        def flat(*leaves):
            return self._pack(self._function(*jax.tree.unflatten(tree, leaves)))

        def run(*leaves):
            return exported.call(*leaves)

        flat.__name__ = run.__name__ = self._description.split()[0]  # shown in profiles
        path = self._folder / (_key(self._description, leaves, tree) + _SUFFIX)
        exported = _read(path) or _export(jit(flat), leaves, path)
        return exported and jit(run)


def _kind(leaf: Any) -> tuple[tuple[int, ...], Any, bool]:
    """Of an array or a ShapeDtypeStruct."""
    return leaf.shape, leaf.dtype, bool(getattr(leaf, "weak_type", False))


def _export(compiled: Callable, leaves: list, path: Path) -> Any:
    """Traces, lowers, and writes the file; None: JAX cannot export the function."""
    from jax import export

    try:
        content = bytes(export.export(compiled)(*leaves).serialize())
    except Exception as error:  # what is wrong with the function itself comes up without storing it
        logging.info("%s: not stored (%s)", path, error)
        return None
    try:
        write_whole(path, hashlib.sha256(content).digest() + content)
        _remove_oldest(path.parent)
    except OSError as error:
        logging.info("%s: not written (%s)", path, error)
    return export.deserialize(bytearray(content))


def _read(path: Path) -> Any:
    """The program of a file; None: there is none, or it is damaged."""
    from jax import export

    try:
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        exported = export.deserialize(bytearray(content[32:]))
        os.utime(path)
    except FileNotFoundError:
        return None
    except Exception as error:
        logging.info("%s: not read (%s)", path, error)
        return None
    return exported


def _remove_oldest(folder: Path) -> None:
    files = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    for path in files[:-MAX_FILES]:
        path.unlink(missing_ok=True)


def _key(description: str, leaves: list, tree: Any) -> str:
    """A hash of all that a traced program depends on."""
    device = jax.devices()[0]
    parts = [
        description,
        str(tree),
        *(str(_kind(leaf)) for leaf in leaves),
        *(device.platform, device.device_kind, device.client.platform_version),
        *map(metadata.version, VERSIONED),
        sys.version,
        _hash_of_code(),
        repr(sorted(jax.config.values.items(), key=lambda item: item[0])),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _hash_of_code() -> str:
    """Of all modules of this package: a version may be edited in place."""
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(_PACKAGE)):
        for path in (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")):
            with open(path, "rb") as file:
                content = file.read()
            digest.update(f"{os.path.relpath(path, _PACKAGE)} {len(content)}\n".encode() + content)
    return digest.hexdigest()
