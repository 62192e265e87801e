"""Reads and checks one split of a folder and builds its index."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.data.annotations.check_split import ImageFacts, check_split
from retinanet_jax.data.annotations.join_categories import join_categories, stated_categories
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.annotations.split_names import SplitNames
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.records import Categories, ImageRecord
from retinanet_jax.data.store.file_facts import FactTable, Stamps, is_image_name, stamp_of
from retinanet_jax.data.store.folder_index import FolderIndex
from retinanet_jax.data.val_share import held_out
from retinanet_jax.runtime.wording import counted

ALSO_TRAINED = "evaluation image that is also in the training split, which raises the AP"
_NAMED = 5


class SharedReading(NamedTuple):
    """State that the splits of one start share.

    stamps: stamps of files, by the folders that were scanned.
    splits: splits that were read, without objects, by root, layout and name.
    """

    stamps: dict[tuple[Path, ...], Stamps]
    splits: dict[tuple[Path, str, str], RawSplit]


class Wanted(NamedTuple):
    """A requested split of a folder.

    split: name of the split on disk.
    part: 'all' images, those left to 'train' on, or those held 'out' for evaluation.
    """

    split: str
    part: str = "all"


class IndexBuilder:
    """Makes the indices of a folder; see folder.load_index for the arguments."""

    def __init__(
        self,
        data_config: Any,
        root: Path,
        layout: Layout,
        names: SplitNames,
        shared: SharedReading,
        cache: Path,
    ):
        self.config, self.root, self.layout, self.names = data_config, root, layout, names
        self.stamps = shared.stamps[layout.folders or (root,)]
        self.read_splits, self.table = shared.splits, FactTable(cache / "images.npz")

    def build(self, wanted: Wanted, line: str, key: str) -> FolderIndex:
        """Returns the index of a split, with `key`; `line` describes the folder.

        Raises:
          DataError: the split is invalid; names the file, the entry, the field and the fix.
        """
        guard = Guard(self.config.on_error, Report())
        raw = self.layout.read(wanted.split, guard)
        self.read_splits[self.key(wanted.split)] = _without_objects(raw)
        others = self.read_others(wanted.split)
        categories = self.join(wanted.split, raw, others, guard)
        named = {str(image.path) for split in (raw, *others.values()) for image in split.images}
        named.update(raw.copies)
        raw = _part(raw, wanted, self.config.val_share, self.root, guard)
        errors = self.table.add_missing([image.path for image in raw.images], self.stamps)

        def facts(image: RawImage) -> ImageFacts:
            if image.path in errors:
                raise errors[image.path]
            return self.table.get(image.path, stamp_of(image.path, self.stamps))

        records = check_split(raw, facts, categories, guard, path=self.root, exif=self.config.exif)
        if wanted.split == self.names.evaluation and self.names.train in others:
            _note_shared(records, others[self.names.train], guard.report)
        lines = [line, *self.describe(wanted, records, categories)]
        unnamed = self.unnamed(raw, named)
        if unnamed:
            names = ", ".join(Path(path).name for path in unnamed[:_NAMED])
            more = ", ..." if len(unnamed) > _NAMED else ""
            lines.append(f"  {len(unnamed):,} image files without annotations: {names}{more}")
        return FolderIndex.of(records, categories, guard.report, "\n".join(lines), key)

    def read_others(self, split: str) -> dict[str, RawSplit]:
        """Returns the other splits for their categories and file names, without their errors."""
        found = {}
        for other in self.layout.splits:
            if other != split and self.key(other) not in self.read_splits:
                with contextlib.suppress(DataError):
                    raw = self.layout.read(other, Guard("skip", Report()))
                    self.read_splits[self.key(other)] = _without_objects(raw)
            if other != split and self.key(other) in self.read_splits:
                found[other] = self.read_splits[self.key(other)]
        return found

    def key(self, split: str) -> tuple[Path, str, str]:
        """Returns the key of a split in SharedReading."""
        return self.root, self.layout.name, split

    def join(
        self, split: str, raw: RawSplit, others: dict[str, RawSplit], guard: Guard
    ) -> Categories:
        """Returns the categories, first of the training split, then of the evaluation split."""
        splits = {split: raw, **others}
        order = dict.fromkeys([*self.names, split])
        try:
            return join_categories([splits[name] for name in order if name in splits], self.root)
        except DataError as error:
            guard.finish(self.root)  # there may be no class because each object has an error
            for reason, where in raw.notes:  # or because each image lacks its label file
                guard.report.add(reason, where)
            skipped = guard.report.summary().replace("\n", "; ")
            raise error.extended(f" ({skipped})" if skipped else "") from None

    def describe(
        self, wanted: Wanted, records: Sequence[ImageRecord], categories: Categories
    ) -> Iterator[str]:
        """Yields lines that describe a split."""
        counts, ignored = dict.fromkeys(categories.names, 0), 0
        for record in records:
            for found in record.annotations:
                counts[categories.names[found.label]] += not found.crowd
            # A region that is ignored for every class is there once for each.
            ignored += len({tuple(found.bbox) for found in record.annotations if found.crowd})
        empty = sum(all(found.crowd for found in record.annotations) for record in records)
        name = wanted.split
        if wanted.part == "train":
            name += f" without the {self.config.val_share:.0%} held out for validation by file name"
        elif wanted.part == "out":
            name = f"held out of {name}"
        by_class = sorted(counts.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {count:,}" for name, count in by_class[:20])
        more = f" and {len(by_class) - 20} more classes" if len(by_class) > 20 else ""
        also = f"; {ignored:,} ignored: crowds or difficult" if ignored else ""
        yield (
            f"  {name}: {counted(len(records), 'image')}, {empty:,} of them without boxes, "
            f"{sum(counts.values()):,} boxes: {shown}{more}{also}"
        )

    def unnamed(self, raw: RawSplit, named: set[str]) -> list[str]:
        """Returns the image files in the folders of a split that no annotation names."""
        folders = {str(image.path.parent) for image in raw.images}
        return [
            path
            for path in sorted(self.stamps)
            if path not in named and is_image_name(path) and str(Path(path).parent) in folders
        ]


def _without_objects(raw: RawSplit) -> RawSplit:
    """The classes and file names of a split, which need less memory than its objects."""
    names = tuple(name for name, _ in stated_categories(raw))
    images = tuple(image._replace(objects=()) for image in raw.images)
    return raw._replace(images=images, class_names=names, notes=())


def _note_shared(evaluation: Sequence[ImageRecord], train: RawSplit, report: Report) -> None:
    trained = {image.path for image in train.images}
    for image in evaluation:
        if image.path in trained:
            report.add(ALSO_TRAINED, str(image.path))


def _part(raw: RawSplit, wanted: Wanted, share: float, root: Path, guard: Guard) -> RawSplit:
    if wanted.part == "all":
        return raw
    if len(raw.images) < 2:
        guard.finish(root)  # perhaps because the others are invalid
        what = f"has {counted(len(raw.images), 'image')}, too few to hold any out"
        raise DataError("split", root, wanted.split, what, "set data.eval_split to another split")
    out = held_out([image.file_name for image in raw.images], share)
    keep = wanted.part == "out"
    images = tuple(im for im, is_out in zip(raw.images, out, strict=True) if is_out is keep)
    return raw._replace(images=images)
