"""Checkpoints of a run, written asynchronously by Orbax: a state and a JSON description of it.

A checkpoint gets its final name once it is complete. It has a manifest with the hashes of its
files, to detect damage; a damaged checkpoint is skipped with a warning, and the one before is used.

Orbax takes .2 s to import and is imported where it is used: detection does without it.
"""

import contextlib
import functools
import json
import logging as std_logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import logging

from retinanet_jax.runtime.checkpoint_arrays import read_arrays
from retinanet_jax.runtime.manifest import MANIFEST, find_damage, write_manifest
from retinanet_jax.runtime.mesh import whole_on_first
from retinanet_jax.runtime.workdir import free_space

FORMAT_VERSION = 1


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, not writable, or of another model."""


class Checkpoints:
    """The checkpoints of one directory, each named by its step.

    A checkpoint holds the item `state`, any pytree of arrays, and the item `metadata`, a dict for
    JSON (config, category names). A context manager: its exit, also by an error, waits until a
    checkpoint being written is complete.

    Reading changes nothing in the directory, which another process may be writing. The first `save`
    cleans it up: incomplete checkpoints of an earlier process are deleted; entries with a number as
    name that are not intact checkpoints are moved to DIRECTORY.damaged.

    Args:
        directory: directory of the checkpoints.
        keep: number of latest checkpoints to keep.
        shared: whether all processes see the directory. If not, process 0 writes the whole state,
            and each process reads a directory of its own.
    """

    def __init__(self, directory: Path, keep: int = 3, shared: bool = True):
        self.directory = Path(directory).absolute()
        self._keep, self._shared = keep, shared
        self._damage: dict[int, str] = {}  # by step, of checkpoints that were checked; '': intact
        self._saving = 0
        self._failed = False

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def latest_step(self, before: int | None = None) -> int | None:
        """The highest step (below `before`) with an intact checkpoint; None without checkpoints.

        Raises:
            CheckpointError: all checkpoints are damaged.
        """
        steps = sorted(self._steps(), reverse=True)
        if before is not None:
            steps = [step for step in steps if step < before]
        for step in steps:
            if not self._find_damage(step):
                return step
        if not steps:
            return None
        found = "\n".join(f"{step}: {self._damage[step]}" for step in steps)
        raise CheckpointError(
            f"{self.directory}: all checkpoints are damaged:\n{found}\nrestore one from a backup, "
            "or use another workdir"
        )

    def save(self, step: int, state: Any, metadata: dict) -> None:
        """Copies the state to the host and writes it in the background.

        Raises:
            CheckpointError: a checkpoint of this or a later step exists already (Orbax alone would
                skip it silently), or the previous one could not be written.
        """
        if not self._shared:
            state = whole_on_first(state)
            if jax.process_index() > 0:
                return
        import orbax.checkpoint as ocp

        description = {"format": FORMAT_VERSION, "step": step, **metadata}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(description)
        )
        with self._write_errors():
            self._writer.wait_until_finished()
            self._saving = step
            saved = self._writer.save(step, args=items)
        if not saved:
            raise CheckpointError(
                f"{self.directory}: step {step} was not saved because step "
                f"{self._writer.latest_step()} already exists; use another workdir"
            )

    def read_metadata(self, step: int | None = None) -> dict:
        """The JSON part of a checkpoint (the latest by default)."""
        step = self._existing(step)
        path = self.directory / str(step) / "metadata" / "metadata"
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error}); the checkpoint is damaged"
            ) from error
        if metadata.get("format") != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: has format {metadata.get('format')!r}; "
                f"this version reads {FORMAT_VERSION}"
            )
        return metadata

    def restore(self, like: Any, step: int | None = None) -> Any:
        """Reads a state (the latest by default) into the structure and shardings of `like`.

        Args:
            like: a pytree of arrays or ShapeDtypeStructs with shardings, on any mesh.

        Raises:
            CheckpointError: structure or shapes differ; the message lists the differences.
        """
        import orbax.checkpoint as ocp

        step = self._existing(step)
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        path = self.directory / str(step) / "state"
        try:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
                return reader.restore(path, args=ocp.args.StandardRestore(target))
        except ValueError as error:
            # Without Orbax's heading, and its advice, which no flag of ours follows.
            found = str(error).rpartition("do not match:")[2].partition("If this mismatch")[0]
            found = " ".join(found.split())
            raise CheckpointError(
                f"{self.directory / str(step)}: does not fit this model: {found}. It was written "
                "with another network or optimizer, or by an earlier version. Train in a new "
                f"workdir; to start from its weights, set "
                f"--config.model.pretrained={self.directory.parent}"
            ) from error

    def read_part(self, names: tuple[str, ...], step: int | None = None) -> dict[str, Any]:
        """Reads some top-level entries of the state, as NumPy arrays.

        Needs no example of the state. An entry that was None stays None.

        Raises:
            CheckpointError: the state has no such entry.
        """
        path = self.directory / str(self._existing(step)) / "state"
        try:
            return read_arrays(path, names)
        except KeyError as error:
            raise CheckpointError(
                f"{path}: {error.args[0]}; it was written by another version of this package"
            ) from error

    def wait(self) -> None:
        """Waits until the last checkpoint is complete.

        Raises:
            CheckpointError: a checkpoint could not be written.
        """
        if "_writer" in vars(self):
            with self._write_errors():
                self._writer.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does, then frees the background threads."""
        if "_writer" not in vars(self):
            return
        if self._failed:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                self._writer.close()
            return
        with self._write_errors():
            self._writer.close()

    @functools.cached_property
    def _writer(self) -> Any:  # an ocp.CheckpointManager
        import orbax.checkpoint as ocp

        # Only for writing, since it deletes incomplete checkpoints. It takes every entry with a
        # number as name for a checkpoint, and saves no step below that number.
        if jax.process_index() == 0:
            self._move_damaged()
        alone = {"active_processes": {0}, "barrier_sync_key_prefix": "first"}
        self.directory.mkdir(parents=True, exist_ok=True)
        logging.get_absl_logger().addFilter(_is_not_raised_later)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                **({} if self._shared else alone)
            ),
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        return ocp.CheckpointManager(self.directory, options=options)

    def _seal(self) -> None:
        """Adds the manifest. Orbax calls this in its thread, before the final rename.

        Orbax's own notes next to the items may change until then; nothing here reads them.
        """
        if jax.process_index() == 0:
            (incomplete,) = self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
            write_manifest(incomplete)

    def _move_damaged(self) -> None:
        intact = {step for step in self._steps() if not self._find_damage(step)}
        for path in self._numbered():
            if int(path.name) not in intact:
                damaged = self.directory.with_name(self.directory.name + ".damaged")
                damaged.mkdir(exist_ok=True)
                taken = sum(p.name.split(".")[0] == path.name for p in damaged.iterdir())
                path.rename(damaged / (f"{path.name}.{taken}" if taken else path.name))
                logging.warning("%s: not an intact checkpoint; moved to %s", path, damaged)

    def _numbered(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        return [path for path in self.directory.iterdir() if path.name.isdecimal()]

    def _steps(self) -> set[int]:
        """Steps of all checkpoints, damaged ones too; without other entries named by digits."""
        parts = ("state", "metadata", MANIFEST)
        return {
            int(path.name)
            for path in self._numbered()
            if any((path / part).exists() for part in parts)
        }

    def _find_damage(self, step: int) -> str:
        """The damage of a checkpoint, '' if it is intact; checked and logged once."""
        if step not in self._damage:
            path = self.directory / str(step)
            damage = find_damage(path)
            for item in ("state", "metadata"):
                if not damage and not (path / item).is_dir():
                    damage = f"{item} is missing"
            self._damage[step] = damage
            if damage:
                logging.warning("%s: the checkpoint is damaged: %s", path, damage)
        return self._damage[step]

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turns errors of writing into a CheckpointError."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            self._failed = True
            # tensorstore names every file first, and the number of the error last.
            reason = str(error).rpartition('": ')[2].partition(" [os_error_code")[0]
            raise CheckpointError(
                f"{self.directory}: step {self._saving} could not be written"
                f"{free_space(self.directory)}: {reason}\n"
                "Earlier checkpoints are intact. Free some space or fix the disk; the same command "
                "then resumes from the last checkpoint"
            ) from error

    def _existing(self, step: int | None) -> int:
        step = self.latest_step() if step is None else step
        steps = self._steps()
        if step is None or not steps:
            workdir = self.directory.parent
            exists = "" if workdir.is_dir() else f", or fix the path: {workdir} does not exist"
            raise CheckpointError(f"{self.directory}: no checkpoint; train first{exists}")
        if step not in steps:
            existing = ", ".join(map(str, sorted(steps)))
            raise CheckpointError(
                f"{self.directory}: no checkpoint of step {step}; it has {existing}"
            )
        if damage := self._find_damage(step):
            raise CheckpointError(f"{self.directory / str(step)}: damaged: {damage}")
        return step


def _is_not_raised_later(record: std_logging.LogRecord) -> bool:
    """Drops the tracebacks of Orbax's threads: `wait` raises the same errors, with the fix."""
    of_thread = record.exc_info and "orbax" in Path(record.pathname).parts
    return not (of_thread and record.levelno >= std_logging.ERROR)
