"""A folder of images in any layout, read in place.

Annotations are read, and images decoded, once. An index of sizes and boxes in the cache replaces
both at the next start, until a file is added, removed or changed.
"""

import contextlib
import fcntl
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats.check_split import ImageFacts, check_split
from retinanet_jax.data.formats.find_layout import describe_layout, find_layout
from retinanet_jax.data.formats.join_categories import join_categories
from retinanet_jax.data.formats.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.formats.split_names import SplitNames, find_split, resolve_splits
from retinanet_jax.data.records import Categories, ImageRecord
from retinanet_jax.data.splits import parse_split
from retinanet_jax.data.store.file_facts import (
    FactTable,
    Stamps,
    fingerprint,
    is_image_name,
    stamp_files,
    stamp_of,
)
from retinanet_jax.data.store.folder_index import FolderIndex
from retinanet_jax.data.val_share import held_out
from retinanet_jax.runtime.user_folders import expand_user

# Part of the key of an index: raise it when what is kept changes.
FORMAT_VERSION = "1"
_MAX_INDICES = 12  # of one folder, for different splits and settings
_NAMED = 5

_log = logging.getLogger(__name__)


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


class Wanted(NamedTuple):
    """A split of a folder as asked for.

    split: its name on disk.
    part: 'all' of it, or what is left to 'train' on, or what is held 'out' for evaluation.
    """

    split: str
    part: str = "all"


def load_index(data_config: Any, split: str) -> FolderIndex:
    """The index of a split of the folder `data_config.root`; see config.DataConfig.

    Args:
      split: its name, or one with the same meaning ('val' for 'valid'), without a slice.

    Raises:
      DataError: names the file, the entry, the field and the fix; or the layouts understood.
    """
    root = expand_user(data_config.root)
    found = find_layout(root, data_config.layout)
    layout = found.layout
    names = _resolve(data_config, layout, root)
    wanted = _wanted(split, names, data_config, layout, root)
    stamps = stamp_files(layout.folders or (root,))
    parts = (FORMAT_VERSION, layout.name, fingerprint(stamps), repr(names), repr(wanted))
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
                builder = _Builder(data_config, root, layout, names, stamps, cache)
                line = describe_layout(root, found, data_config.layout)
                index = builder.build(wanted, line, key)
                index.write(path)
                _clean(cache)
    return index


def split_names(data_config: Any) -> dict[str, str]:
    """All splits of a folder: from the name for `load_index` to a name for a prepared dataset."""
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
        if holds_out and split in ("auto", "validation", "val", "valid", "dev"):
            return Wanted(names.train, "out")
    elif (found := find_split(split, layout.splits)) is not None:
        return Wanted(found)
    fix = f"take one of {', '.join(layout.splits)}"
    if names.evaluation is None and split == evaluation:
        fix += ", or set data.val_share=0.1 and data.eval_split=auto to hold some images out"
    raise DataError("split", root, "", f"has no split {split!r}", fix)


class _Builder:
    """Reads and checks a folder, to make the index of one split."""

    def __init__(
        self,
        data_config: Any,
        root: Path,
        layout: Layout,
        names: SplitNames,
        stamps: Stamps,
        cache: Path,
    ):
        self.config, self.root, self.layout, self.names = data_config, root, layout, names
        self.stamps, self.table = stamps, FactTable(cache / "images.npz")

    def build(self, wanted: Wanted, line: str, key: str) -> FolderIndex:
        guard = Guard(self.config.on_error, Report())
        raw = self.layout.read(wanted.split, guard)
        others = self.read_others(wanted.split)
        categories = self.join(wanted.split, raw, others)
        named = {str(image.path) for split in (raw, *others.values()) for image in split.images}
        raw = _part(raw, wanted, self.config.val_share, self.root, guard)
        errors = self.table.add_missing([image.path for image in raw.images], self.stamps)

        def facts(image: RawImage) -> ImageFacts:
            if image.path in errors:
                raise errors[image.path]
            return self.table.get(image.path, stamp_of(image.path, self.stamps))

        records = check_split(raw, facts, categories, guard, path=self.root, exif=self.config.exif)
        lines = [line, *self.describe(wanted, records, categories)]
        unnamed = self.unnamed(raw, named)
        if unnamed:
            names = ", ".join(Path(path).name for path in unnamed[:_NAMED])
            more = ", ..." if len(unnamed) > _NAMED else ""
            lines.append(f"  {len(unnamed):,} image files that no annotation names: {names}{more}")
        return FolderIndex.of(records, categories, guard.report, "\n".join(lines), key)

    def read_others(self, split: str) -> dict[str, RawSplit]:
        """The other splits, for their categories and file names; errors are reported elsewhere."""
        found = {}
        for other in self.layout.splits:
            if other != split:
                with contextlib.suppress(DataError):
                    found[other] = self.layout.read(other, Guard("skip", Report()))
        return found

    def join(self, split: str, raw: RawSplit, others: dict[str, RawSplit]) -> Categories:
        """The categories: those of the training split first, then of the evaluation split."""
        splits = {split: raw, **others}
        order = dict.fromkeys([*self.names, split])
        return join_categories([splits[name] for name in order if name in splits])

    def describe(
        self, wanted: Wanted, records: Sequence[ImageRecord], categories: Categories
    ) -> Iterator[str]:
        """What a split holds, in lines for a person."""
        counts = dict.fromkeys(categories.names, 0)
        for record in records:
            for found in record.annotations:
                counts[categories.names[found.label]] += 1
        empty = sum(not record.annotations for record in records)
        name = wanted.split
        if wanted.part == "train":
            name += f" without the {self.config.val_share:.0%} held out for validation by file name"
        elif wanted.part == "out":
            name = f"held out of {name}"
        by_class = sorted(counts.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {count:,}" for name, count in by_class[:20])
        more = f" and {len(by_class) - 20} more classes" if len(by_class) > 20 else ""
        yield (
            f"  {name}: {len(records):,} images, {empty:,} of them without boxes, "
            f"{sum(counts.values()):,} boxes: {shown}{more}"
        )

    def unnamed(self, raw: RawSplit, named: set[str]) -> list[str]:
        """Image files in the folders of a split that no annotation of any split names."""
        folders = {str(image.path.parent) for image in raw.images}
        return [
            path
            for path in sorted(self.stamps)
            if path not in named and is_image_name(path) and str(Path(path).parent) in folders
        ]


def _part(raw: RawSplit, wanted: Wanted, share: float, root: Path, guard: Guard) -> RawSplit:
    if wanted.part == "all":
        return raw
    if len(raw.images) < 2:
        guard.finish(root)  # perhaps because the others are invalid
        what = f"has {len(raw.images)} images, of which none can be held out"
        raise DataError("split", root, wanted.split, what, "set data.eval_split to a split")
    out = held_out([image.file_name for image in raw.images], share)
    keep = wanted.part == "out"
    images = tuple(im for im, is_out in zip(raw.images, out, strict=True) if is_out is keep)
    return raw._replace(images=images)


def _cache_folder(cache_dir: str, root: Path) -> Path:
    """Where indices of a folder are kept."""
    place = hashlib.blake2b(str(root.resolve()).encode("utf-8", "surrogateescape"), digest_size=8)
    return expand_user(cache_dir) / "folders" / f"{root.resolve().name}-{place.hexdigest()}"


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
    old = cache.parent.parent / "folder"
    if old.is_dir():
        _log.warning("%s: prepared by an older version and not used any more; delete it", old)
