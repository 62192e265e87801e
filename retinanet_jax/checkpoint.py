"""Checkpoints of a run: Orbax, asynchronous, the state beside a JSON description of it."""

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

FORMAT_VERSION = 1


class CheckpointError(RuntimeError):
    """A checkpoint that is not there, or does not fit the program that asks for it."""


class Checkpoints:
    """The checkpoints of one directory, each named by its step.

    A checkpoint holds the item `state`, any pytree of arrays, and the item `metadata`, a dict for
    JSON (configuration, category names), so that a checkpoint explains itself. A context manager:
    however it is left, a checkpoint that is being written is finished first.
    """

    def __init__(self, directory: Path, keep: int = 3):
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """The highest step with a complete checkpoint, or None."""
        # Orbax takes any directory with a number for its name as a checkpoint.
        complete = [
            s for s in self._manager.all_steps() if (self.directory / str(s) / "state").is_dir()
        ]
        return max(complete, default=None)

    def save(self, step: int, state: Any, metadata: dict) -> None:
        """Copies the state to the host and writes it in the background.

        Raises:
            CheckpointError: where there is a checkpoint of this or a later step already; Orbax
                alone would write nothing and say nothing.
        """
        description = {"format": FORMAT_VERSION, "step": step, **metadata}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(description)
        )
        if not self._manager.save(step, args=items):
            raise CheckpointError(
                f"{self.directory}: step {step} was not saved, since step "
                f"{self._manager.latest_step()} is there already; use another workdir"
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
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        try:
            return self._manager.restore(step, args=items).state
        except ValueError as error:
            raise CheckpointError(
                f"{self.directory / str(step)}: does not fit this model: {error}"
            ) from error

    def read_part(self, names: tuple[str, ...], step: int | None = None) -> dict[str, Any]:
        """Reads some top-level entries of the state only, onto the first local device.

        Needs no program that knows the state's structure. An entry that was None stays None.
        """
        path = self.directory / str(self._existing(step)) / "state"
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            stored = reader.metadata(path).item_metadata.tree
            target = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                {name: stored[name] for name in names},
            )
            arguments = ocp.checkpoint_utils.construct_restore_args(target)
            return reader.restore(
                path,
                args=ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True),
            )

    def wait(self) -> None:
        """Returns when everything is on the disk; raises what the writing raised."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees the background threads."""
        self._manager.close()

    def _existing(self, step: int | None) -> int:
        step = self.latest_step() if step is None else step
        if step is None or not (self.directory / str(step)).is_dir():
            raise CheckpointError(f"{self.directory}: there is no checkpoint; train first")
        return step
