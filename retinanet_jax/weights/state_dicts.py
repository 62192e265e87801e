"""State dicts in the forms that occur: nested, prefixed, with a moving average beside them."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from retinanet_jax.weights.weights_error import WeightsError, shown

# What torch.compile and DataParallel put into keys, anywhere.
_WRAPPERS = ("_orig_mod", "module")
_AVERAGE = re.compile(r"ema|average|teacher|swa", re.IGNORECASE)

State = dict[str, np.ndarray]


def without_wrappers(state: Mapping[str, np.ndarray]) -> State:
    """The state dict without the parts of its keys that torch.compile and DataParallel add."""
    bare = {
        ".".join(part for part in key.split(".") if part not in _WRAPPERS): value
        for key, value in state.items()
    }
    return bare if len(bare) == len(state) else dict(state)


def select_network(
    state: Mapping[str, np.ndarray], mark: str, average: bool
) -> tuple[State, list[str]] | None:
    """The part of a state dict that is the network, without the prefix of its keys.

    Args:
        state: arrays by key.
        mark: some keys of the network begin with it, such as 'backbone.body.'.
        average: takes a moving average of the weights (EMA) instead of the weights.

    Returns:
        The arrays, and notes on what was done; None if no key has the mark.

    Raises:
        WeightsError: several networks have the mark, or there is no moving average.
    """
    prefixes = {prefix for key in state if (prefix := _prefix_of(key, mark)) is not None}
    if not prefixes:
        return None
    copies = {prefix for prefix in prefixes if _AVERAGE.search(prefix)}
    # MMCV: ema_backbone_conv1_weight beside backbone.conv1.weight.
    renamed = {f"ema_{key.replace('.', '_')}": key for key in state}
    mmcv = {renamed[key]: value for key, value in state.items() if key in renamed}
    wanted = copies if average and copies else prefixes - copies or prefixes
    if average and not (copies or mmcv):
        raise WeightsError("has no moving average of the weights; leave --ema out")
    if len(wanted) > 1:
        raise WeightsError(
            f"holds {len(wanted)} networks, under {', '.join(map(shown, sorted(wanted)))}; save "
            "one of them"
        )
    prefix = next(iter(wanted))
    others = tuple(copies - {prefix})
    taken = {
        key[len(prefix) :]: value
        for key, value in state.items()
        if key.startswith(prefix) and not key.startswith(others)
    }
    notes = [f"prefix of its keys: {shown(prefix)}"] if prefix else []
    if mmcv:
        if average:
            taken |= mmcv
        taken = {key: value for key, value in taken.items() if key not in renamed}
        notes.append(_average_note(len(mmcv), "ema_", average))
    for copy in sorted(copies):
        count = sum(key.startswith(copy) for key in state)
        notes.append(_average_note(count, copy, copy == prefix))
    rest = [
        key
        for key in state
        if not key.startswith((prefix, *copies)) and not (mmcv and key in renamed)
    ]
    if rest:
        notes.append(f"left out: {_summary(rest)}")
    return taken, notes


def _prefix_of(key: str, mark: str) -> str | None:
    """What is before the mark in a key: '' or something that ends with a dot."""
    if key.startswith(mark):
        return ""
    place = key.find("." + mark)
    return key[: place + 1] if place >= 0 else None


def _average_note(count: int, prefix: str, taken: bool) -> str:
    what = f"the moving average (EMA) of the weights, {count} arrays under {shown(prefix)}"
    return f"loaded: {what}" if taken else f"left out: {what}; --ema loads it"


def _summary(keys: Iterable[str]) -> str:
    counts: dict[str, int] = {}
    for key in keys:
        first = key.split(".")[0]
        counts[first] = counts.get(first, 0) + 1
    listed = [f"{count} under {shown(first)}" for first, count in list(counts.items())[:5]]
    return ", ".join(listed) + (" and others" if len(counts) > 5 else "")
