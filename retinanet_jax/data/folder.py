"""A folder of images in any layout, read in place.

Annotations are read and images are decoded once. From the next start on, an index of sizes and
boxes in the cache replaces both, until a file is added, removed or changed.
"""

import contextlib
import contextvars
import dataclasses
import fcntl
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.annotations.raw import Layout
from retinanet_jax.data.annotations.split_names import (
    SplitNames,
    find_split,
    is_validation,
    resolve_splits,
    split_kind,
)
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.find_layout import describe_layout, find_layout
from retinanet_jax.data.index_builder import IndexBuilder, SharedReading, Wanted
from retinanet_jax.data.splits import parse_split
from retinanet_jax.data.store.file_facts import (
    fingerprint,
    stamp_files,
)
from retinanet_jax.data.store.folder_index import FolderIndex
from retinanet_jax.runtime.user_folders import cache_folder, expand_user

# Part of the key of an index: raise it when what is kept changes.
FORMAT_VERSION = "6"
_MAX_INDICES = 12  # of one folder, for different splits and settings


_shared: contextvars.ContextVar[SharedReading | None] = contextvars.ContextVar(
    "shared", default=None
)


@contextlib.contextmanager
def sharing_reading() -> Iterator[None]:
    """Lists the files of a folder only once for all splits loaded within this context.

    Files that change meanwhile are detected at the next start.
    """
    token = _shared.set(SharedReading({}, {}))
    try:
        yield
    finally:
        _shared.reset(token)


class FolderSettings(NamedTuple):
    """The fields of config.DataConfig that a folder needs, for use without a config."""

    root: str
    cache_dir: str
    layout: str = "auto"
    train_split: str = "train"
    eval_split: str = "auto"
    val_share: float = 0.1
    exif: str = "auto"
    on_error: str = "strict"


def load_index(data_config: Any, split: str) -> FolderIndex:
    """Returns the index of a split of the folder `data_config.root`; see config.DataConfig.

    Args:
      split: name of the split, or one with the same meaning ('val' for 'valid'), without a slice.

    Raises:
      DataError: the data is invalid; the message names the file, entry, field and fix, or lists
        the layouts.
    """
    root = expand_user(data_config.root)
    found = find_layout(root, data_config.layout)
    layout = found.layout
    names = _resolve(data_config, layout, root)
    wanted = _wanted(split, names, data_config, layout, root)
    shared = _shared.get() or SharedReading({}, {})
    folders = layout.folders or (root,)
    if folders not in shared.stamps:
        shared.stamps[folders] = stamp_files(folders)
    stamps = shared.stamps[folders]
    parts = (
        FORMAT_VERSION,
        layout.name,
        fingerprint(stamps, layout.suffixes),
        repr(names),
        repr(wanted),
    )
    settings = (data_config.exif, data_config.on_error, repr(data_config.val_share))
    key = hashlib.blake2b("\0".join((*parts, *settings)).encode(), digest_size=16).hexdigest()
    cache = _cache_folder(data_config.cache_dir, root)
    name = hashlib.blake2b(repr((names, wanted, settings, layout.name)).encode(), digest_size=8)
    path = cache / f"{wanted.split}-{name.hexdigest()}.npz"
    index = FolderIndex.read(path, key)
    if index is None:
        with _locked(cache):
            index = FolderIndex.read(path, key)  # another process may have been first
            if index is None:
                builder = IndexBuilder(data_config, root, layout, names, shared, cache)
                line = describe_layout(root, found, data_config.layout)
                if layout.unlabelled:
                    line += f"; left out without annotations: {', '.join(layout.unlabelled)}"
                others = [name for name in layout.splits if name not in names]
                if names.evaluation is None and others:
                    line += f"; not used: {', '.join(others)}"
                    line += f" (--config.data.eval_split={others[0]} evaluates on it)"
                index = builder.build(wanted, line, key)
                index.write(path)
                _clean(cache)
    held_out = wanted.part == "out"
    return dataclasses.replace(index, split=f"{'held out of ' * held_out}{wanted.split}")


def split_names(data_config: Any) -> dict[str, str]:
    """Returns all splits of a folder: names in a prepared dataset, by name for `load_index`."""
    root = expand_user(data_config.root)
    layout = find_layout(root, data_config.layout).layout
    names = _resolve(data_config, layout, root)
    found = {name: name for name in layout.splits if name not in names}
    if names.train is not None:
        found[data_config.train_split] = "train"
    if names.evaluation is not None:
        found[data_config.eval_split] = names.evaluation
    elif names.train is not None and data_config.val_share > 0:
        found[data_config.eval_split] = "val"
    return found


def _resolve(data_config: Any, layout: Layout, root: Path) -> SplitNames:
    train, evaluation = (
        parse_split(name)[0] for name in (data_config.train_split, data_config.eval_split)
    )
    return resolve_splits(train, evaluation, layout.splits)


def _wanted(split: str, names: SplitNames, data_config: Any, layout: Layout, root: Path) -> Wanted:
    train, evaluation = (
        parse_split(name)[0] for name in (data_config.train_split, data_config.eval_split)
    )
    holds_out = names.evaluation is None and names.train is not None and data_config.val_share > 0
    if split == train and names.train is not None:
        return Wanted(names.train, "train" if holds_out else "all")
    if split == evaluation:
        if names.evaluation is not None:
            return Wanted(names.evaluation)
        if holds_out and is_validation(split):
            return Wanted(names.train, "out")
    elif (found := find_split(split, layout.splits)) is not None:
        return Wanted(found)
    fix = f"use one of {', '.join(layout.splits)}"
    if split == train and len(layout.splits) > 1:
        fix += f"; {_other_splits(layout.splits, root)}"
    if names.evaluation is None and split == evaluation:
        fix += ", or set data.val_share=0.1 and data.eval_split=auto to hold some images out"
    what = f"has no split {split!r}"
    if find_split(split, layout.unlabelled) is not None:
        what = f"has no annotation for the images of split {split!r}"
    raise DataError("split", root, "", what, fix)


def _other_splits(splits: Sequence[str], root: Path) -> str:
    """The flags that train on splits of other names, and evaluate on one for that, if there is."""
    kinds = {name: _kind(name) for name in splits}
    if set(kinds.values()) != {""}:
        train, *rest = sorted(splits, key=lambda name: ("", "val", "test").index(kinds[name]))
        evaluation = min(rest, key=lambda name: ("val", "test", "").index(kinds[name]))
        return (
            f"write --config.data.train_split={train} --config.data.eval_split={evaluation} "
            f"to train on {train} and evaluate on {evaluation}"
        )
    first, *others = splits
    mixed = ", ".join(f"'folder:{root}:{name}'" for name in others)
    return (
        f"write --config.data.train_split={first} to train on it alone; if no split "
        f'repeats another, add the others with --config.data.mix="({mixed},)"'
    )


def _kind(split: str) -> str:
    """'val' or 'test' for a name with such a word in it; else ''."""
    kinds = list(map(split_kind, re.split(r"[^a-z0-9]+", split.lower())))
    return next((kind for kind in ("val", "test") if kind in kinds), "")


def _cache_folder(cache_dir: str, root: Path) -> Path:
    """Where indices of a folder are kept."""
    place = hashlib.blake2b(str(root.resolve()).encode("utf-8", "surrogateescape"), digest_size=8)
    return cache_folder(cache_dir) / "folders" / f"{root.resolve().name}-{place.hexdigest()}"


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """One process at a time reads a folder; the others then take its index."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no cache, or no locks: each reads by itself
            cache.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(cache / ".lock", "w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clean(cache: Path) -> None:
    """Removes the oldest indices of a folder beyond _MAX_INDICES."""
    with contextlib.suppress(OSError):
        indices = [path for path in cache.glob("*-*.npz") if path.name != "images.npz"]
        for path in sorted(indices, key=lambda p: p.stat().st_mtime)[:-_MAX_INDICES]:
            path.unlink()
