"""Checkpoints of a run: Orbax, asynchronous, the state beside a JSON description of it.

A checkpoint appears whole, under its final name, or not at all. In it is a manifest with the hashes
of its files, by which later damage is found; a damaged one is passed over, with a warning, for the
one before.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from retinanet_jax.runtime.manifest import MANIFEST, find_damage, write_manifest
from retinanet_jax.runtime.workdir import describe_room

FORMAT_VERSION = 1


class CheckpointError(RuntimeError):
    """A checkpoint that is not there, is damaged, cannot be written or does not fit."""


class Checkpoints:
    """The checkpoints of one directory, each named by its step.

    A checkpoint holds the item `state`, any pytree of arrays, and the item `metadata`, a dict for
    JSON (configuration, category names), so that a checkpoint explains itself. A context manager:
    however it is left, a checkpoint that is being written is finished first.

    Reading changes nothing in the directory, which another process may be writing. The first `save`
    clears it: what an ended process left half written is deleted; what has a number for its name
    and is no intact checkpoint is moved to DIRECTORY.damaged, beside it.
    """

    def __init__(self, directory: Path, keep: int = 3):
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._damage: dict[int, str] = {}  # of the checkpoints that were looked at; '' is none
        self._saving = 0
        self._failed = False

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def latest_step(self, before: int | None = None) -> int | None:
        """The highest step (below `before`) with an intact checkpoint, or None where there is no
        checkpoint.

        Raises:
            CheckpointError: where there are some and all are damaged.
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
            f"{self.directory}: no checkpoint is intact:\n{found}\nput a copy of one in its place, "
            "or begin anew in another workdir"
        )

    def save(self, step: int, state: Any, metadata: dict) -> None:
        """Copies the state to the host and writes it in the background.

        Raises:
            CheckpointError: where there is a checkpoint of this or a later step already (Orbax
                alone would write nothing and say nothing), or the one before could not be written.
        """
        description = {"format": FORMAT_VERSION, "step": step, **metadata}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(description)
        )
        with self._telling():
            self._writer.wait_until_finished()
            self._saving = step
            saved = self._writer.save(step, args=items)
        if not saved:
            raise CheckpointError(
                f"{self.directory}: step {step} was not saved, since step "
                f"{self._writer.latest_step()} is there already; use another workdir"
            )

    def read_metadata(self, step: int | None = None) -> dict:
        """The JSON part of a checkpoint (the latest by default)."""
        step = self._existing(step)
        path = self.directory / str(step) / "metadata" / "metadata"
        try:
            metadata = json.loads(path.read_text())
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
            like: a pytree of arrays or ShapeDtypeStructs with shardings; any mesh will do.

        Raises:
            CheckpointError: with what differs, where the structures or shapes do not fit.
        """
        step = self._existing(step)
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        path = self.directory / str(step) / "state"
        try:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
                return reader.restore(path, args=ocp.args.StandardRestore(target))
        except ValueError as error:
            raise CheckpointError(
                f"{self.directory / str(step)}: does not fit this model: {error}"
            ) from error

    def read_part(self, names: tuple[str, ...], step: int | None = None) -> dict[str, Any]:
        """Reads some top-level entries of the state only, onto the first local device.

        Needs no program that knows the state's structure. An entry that was None stays None.

        Raises:
            CheckpointError: the state has no such entry.
        """
        path = self.directory / str(self._existing(step)) / "state"
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        # Asked of the handler: a Checkpointer warns of a file that an item does not have.
        handler = ocp.PyTreeCheckpointHandler()
        stored = handler.metadata(path).tree
        if missing := [name for name in names if name not in stored]:
            raise CheckpointError(
                f"{path}: has {', '.join(stored)} and no {', '.join(missing)}; it is of another "
                "version of this program"
            )
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            {name: stored[name] for name in names},
        )
        restore_args = ocp.checkpoint_utils.construct_restore_args(target)
        arguments = ocp.args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
        with ocp.Checkpointer(handler) as reader:
            return reader.restore(path, args=arguments)

    def wait(self) -> None:
        """Returns when everything is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        if "_writer" in vars(self):
            with self._telling():
                self._writer.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees the background threads; raises as `wait` does, if it has not yet."""
        if "_writer" not in vars(self):
            return
        if self._failed:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                self._writer.close()
            return
        with self._telling():
            self._writer.close()

    @functools.cached_property
    def _writer(self) -> ocp.CheckpointManager:
        # Made by whoever writes only, since it deletes what looks half written. It takes whatever
        # has a number for its name as a checkpoint, and saves no step below that.
        if jax.process_index() == 0:
            self._set_damaged_aside()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        return ocp.CheckpointManager(self.directory, options=options)

    def _seal(self) -> None:
        """Adds the manifest: Orbax calls this, in its thread, before it gives the final name.

        What Orbax notes beside the items may change until then; nothing here reads it.
        """
        if jax.process_index() == 0:
            (half,) = self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
            write_manifest(half)

    def _set_damaged_aside(self) -> None:
        intact = {step for step in self._steps() if not self._find_damage(step)}
        for path in self._numbered():
            if int(path.name) not in intact:
                aside = self.directory.with_name(self.directory.name + ".damaged")
                aside.mkdir(exist_ok=True)
                taken = sum(p.name.split(".")[0] == path.name for p in aside.iterdir())
                path.rename(aside / (f"{path.name}.{taken}" if taken else path.name))
                logging.warning("%s: is no intact checkpoint; moved to %s", path, aside)

    def _numbered(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        return [path for path in self.directory.iterdir() if path.name.isdecimal()]

    def _steps(self) -> set[int]:
        """Of all checkpoints, damaged ones too; a number for a name alone makes none."""
        parts = ("state", "metadata", MANIFEST)
        return {
            int(path.name)
            for path in self._numbered()
            if any((path / part).exists() for part in parts)
        }

    def _find_damage(self, step: int) -> str:
        """What is wrong with a checkpoint, '' if nothing; read once, and told once."""
        if step not in self._damage:
            path = self.directory / str(step)
            damage = find_damage(path)
            for item in ("state", "metadata"):
                if not damage and not (path / item).is_dir():
                    damage = f"{item} is not there"
            self._damage[step] = damage
            if damage:
                logging.warning("%s: the checkpoint is damaged: %s", path, damage)
        return self._damage[step]

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Turns what the writing raises into a CheckpointError."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            self._failed = True
            reason = str(error)[-200:]  # tensorstore names every file first
            raise CheckpointError(
                f"{self.directory}: step {self._saving} could not be written"
                f"{describe_room(self.directory)}: {reason}\n"
                "earlier checkpoints are as they were; make room or fix the disk, and the same "
                "command goes on from the last one"
            ) from error

    def _existing(self, step: int | None) -> int:
        step = self.latest_step() if step is None else step
        steps = self._steps()
        if step is None or not steps:
            raise CheckpointError(f"{self.directory}: there is no checkpoint; train first")
        if step not in steps:
            there = ", ".join(map(str, sorted(steps)))
            raise CheckpointError(f"{self.directory}: has no checkpoint {step}, but {there}")
        if damage := self._find_damage(step):
            raise CheckpointError(f"{self.directory / str(step)}: is damaged: {damage}")
        return step
