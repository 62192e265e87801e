"""Fills a tree of variables from the arrays of a checkpoint, and reports on each array."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from retinanet_jax.weights.weights_error import WeightsError

Path = tuple[str, ...]  # e.g. ("backbone", "layer1_0", "bn1", "mean"), without the collection
# our leaf -> torch's name of it; a norm's scale and a convolution's kernel are both `weight`
LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Imported:
    """The filled variables, and a report on each array.

    taken and random are paths in our tree ('backbone/layer1_0/conv1/kernel'); unused and misshapen
    are keys of the checkpoint. notes are further lines for the log.
    """

    variables: dict[str, Any]  # {'params', 'batch_stats'}, float32
    taken: tuple[str, ...]
    random: tuple[str, ...]  # kept as they were in the given variables
    unused: tuple[str, ...]
    misshapen: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """For the terminal: one name for a whole module, where all of it was treated alike."""
        lines = [f"loaded from the checkpoint: {len(self.taken)} arrays"]
        everything = self.taken + self.random
        for title, paths in (("loaded", self.taken), ("random", self.random)):
            lines.append(
                f"  {title}: {', '.join(whole_modules(sorted(paths), everything)) or 'nothing'}"
            )
        counters = [key for key in self.unused if is_batch_counter(key)]
        unused = [key for key in self.unused if not is_batch_counter(key)]
        if counters:
            unused.append(f"{len(counters)} batch counters (num_batches_tracked)")
        for title, keys in (("unused", unused), ("wrong shape", self.misshapen)):
            if keys:
                listed = ", ".join(keys[:20]) + (f" and {len(keys) - 20} more" * (len(keys) > 20))
                lines.append(f"  {title} in the checkpoint: {listed}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def is_batch_counter(key: str) -> bool:
    """torch's count of training steps of each batch norm, which is not needed here."""
    return key.endswith(".num_batches_tracked")


def whole_modules(paths: Iterable[str], everything: Iterable[str]) -> list[str]:
    """The shortest prefixes that cover just the given paths out of everything, in order."""
    chosen = set(paths)
    mixed = {prefix for path in set(everything) - chosen for prefix in _prefixes(path)}
    shortest = (next(p for p in _prefixes(path) if p not in mixed) for path in paths)
    return list(dict.fromkeys(shortest))


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def fill(
    variables: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    key_of: Callable[[Path], str | None],
    *,
    partial: bool,
    may_be_unused: Callable[[str], bool],
) -> Imported:
    """The variables with every leaf that the checkpoint has, in our layout and float32.

    key_of gives the checkpoint's key of a leaf, or None where such a checkpoint never has one (the
    heads, for a backbone); no RetinaNet of another project has a centre-ness. Raises WeightsError
    where a key is missing, a shape differs or a key is left over for which may_be_unused is false;
    with partial=True these are only reported, and it is an error if nothing fits.
    """
    taken, random, missing, misshapen, used = [], [], [], [], set()

    def choose(full_path, leaf):
        path = tuple(entry.key for entry in full_path)[1:]
        name, key = "/".join(path), None if path[1] == "centerness" else key_of(path)
        used.add(key)
        if key in state:
            value = to_our_layout(path[-1], state[key])
            if value.shape == leaf.shape:
                taken.append(name)
                return value
            misshapen.append(f"{key} {value.shape} for {name} {tuple(leaf.shape)}")
        elif key is not None:
            missing.append(f"{key} for {name}")
        random.append(name)
        return leaf

    filled = jax.tree_util.tree_map_with_path(choose, dict(variables))
    unused = [key for key in state if key not in used]
    if not partial:
        unknown = [key for key in unused if not may_be_unused(key)]
        _raise_if_any(missing=missing, misshapen=misshapen, unknown=unknown)
    if not taken:
        raise WeightsError(
            f"no array of the checkpoint fits the network; its first keys are {list(state)[:5]}"
        )
    return Imported(filled, tuple(taken), tuple(random), tuple(unused), tuple(misshapen))


def to_our_layout(leaf_name: str, value: np.ndarray) -> np.ndarray:
    """A torch array as ours, float32: convolution kernels from O I H W to H W I O."""
    value = np.asarray(value).astype(np.float32)
    return value.transpose(2, 3, 1, 0) if leaf_name == "kernel" and value.ndim == 4 else value


def _raise_if_any(**problems: list[str]) -> None:
    listed = [
        f"{name}: {'; '.join(keys[:20])}" + f" and {len(keys) - 20} more" * (len(keys) > 20)
        for name, keys in problems.items()
        if keys
    ]
    if listed:
        raise WeightsError(
            "the checkpoint does not fit the network. "
            + ". ".join(listed)
            + ". Use the model config that the checkpoint was trained with"
        )
