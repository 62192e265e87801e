"""Finds the layout of a folder by trying the finders of all layouts in order."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations.folder_files import list_folder, listings_kept
from retinanet_jax.data.annotations.missing_images import with_missing_images
from retinanet_jax.data.annotations.raw import Finder, Layout, RawSplit
from retinanet_jax.data.annotations.split_names import find_split, split_kind, split_of_file
from retinanet_jax.data.data_errors import DataError, Guard, NoAnnotationsError
from retinanet_jax.data.formats import (
    bdd100k,
    cloud_jsonl,
    coco_layouts,
    createml,
    crowdhuman,
    csv_tables,
    cvat,
    darwin,
    datumaro,
    dota,
    gtsdb,
    image_list,
    imagefolder,
    kitti,
    label_studio,
    labelbox,
    labelme,
    mot,
    oidv4,
    sagemaker,
    supervisely,
    tfrecord,
    via,
    visdrone,
    voc_folder,
    vott,
    widerface,
    yolo,
)
from retinanet_jax.data.formats.unrecognized import unrecognized

AUTO = "auto"
# The first that fits is taken.
FINDERS: dict[str, Finder] = {
    "coco": coco_layouts.find,
    "yolo": yolo.find,
    "voc": voc_folder.find,
    "labelme": labelme.find,
    "supervisely": supervisely.find,
    "via": via.find,
    "createml": createml.find,
    "bdd100k": bdd100k.find,
    "label_studio": label_studio.find,
    "labelbox": labelbox.find,
    "darwin": darwin.find,
    "cvat": cvat.find,
    "datumaro": datumaro.find,
    "kitti": kitti.find,
    "visdrone": visdrone.find,
    "dota": dota.find,
    "widerface": widerface.find,
    "csv": csv_tables.find,
    "imagefolder": imagefolder.find,
    "tfrecord": tfrecord.find,
    "image_list": image_list.find,
    "sagemaker": sagemaker.find,
    "mot": mot.find,
    "oidv4": oidv4.find,
    "crowdhuman": crowdhuman.find,
    "vott": vott.find,
    "cloud_jsonl": cloud_jsonl.find,
    "gtsdb": gtsdb.find,
}
# Often written from a dataset in another layout, or converted to one, that is in a folder beside
# them: that one is taken. Those of the second group may be converted to those of the first.
_LAST = (
    ("image_list", "sagemaker"),
    ("mot", "oidv4", "crowdhuman", "vott", "cloud_jsonl", "gtsdb"),
)
_SHOWN, _DEPTH, _MAX_FOLDERS = 8, 4, 50


class Found(NamedTuple):
    """A layout and where it was found: in the root, or in a folder in it."""

    layout: Layout
    place: Path


def find_layout(root: Path, layout: str = AUTO) -> Found:
    """Returns the first layout that fits a dataset's folder or file.

    Without one, returns the layout of the only folder in it that has one: archives and repositories
    often have a dataset folder beside texts and scripts.

    Args:
      root: folder of the dataset.
      layout: 'auto', or the name of the only layout to try.

    Raises:
      DataError: the folder does not exist, no layout fits, or several folders in it have one; the
        message lists what is there. Or the first layout that fits has a broken file.
    """
    if not root.exists():
        what = "does not exist" if root.is_absolute() else f"does not exist in {Path.cwd()}"
        fix = "set --data (config.data.root) to the folder of your images and annotations"
        raise DataError("missing folder", root, "", what, fix)
    if layout not in (AUTO, *FINDERS):
        fix = f"write one of auto, {', '.join(FINDERS)}"
        raise DataError("layout", "data.layout", "", f"is {layout!r}", fix)
    last = set(itertools.chain(*_LAST))
    names = [name for name in FINDERS if name not in last] if layout == AUTO else [layout]
    with listings_kept():
        for group in (names, *(_LAST if layout == AUTO else ())):
            if found := _search(root, group):
                return found
        if layout == "yolo" and (named := yolo.find(root, named=True)) is not None:
            return Found(with_missing_images(root, named, root), root)
        raise _unrecognized(root, layout)


def _search(root: Path, names: Sequence[str]) -> Found | None:
    """The one place that one of the layouts fits, the folders nearest to the root first.

    Raises:
      DataError: there are several, or the first layout that fits has a broken file.
    """
    places = [root]
    for _ in range(_DEPTH if names else 0):
        tried = [_first(names, place) for place in places]
        found = [one for one in tried if isinstance(one, Found)]
        broken = [one for one in tried if isinstance(one, DataError)]
        if len(found) == 1 and not broken:
            layout, place = found[0]
            return Found(with_missing_images(root, layout, place), place)
        if found and not broken and (joined := _join_splits(root, found)):
            return Found(joined, root)
        if found:
            raise _several(root, found)
        if broken:
            raise broken[0]
        places = [f for place in places for f in _folders(place)][:_MAX_FOLDERS]
    return None


def _join_splits(root: Path, found: list[Found]) -> Layout | None:
    """The layout of folders that are a split each by their names: train_zip/, test_zip/."""
    layouts = {split_of_file(f.place, root): with_missing_images(root, *f) for f in found}
    if len(layouts) < len(found) or None in layouts or find_split("train", list(layouts)) is None:
        return None
    first, *others = layouts.values()
    if any(layout.name != first.name for layout in others):
        return None
    for split, layout in layouts.items():
        # A folder that nothing divides is of the split 'train' by itself.
        kinds = {split_kind(split), split_kind("train")}
        if len(layout.splits) != 1 or split_kind(layout.splits[0]) not in kinds:
            return None

    def read(split: str, guard: Guard) -> RawSplit:
        return layouts[split].read(layouts[split].splits[0], guard)

    folders = tuple(dict.fromkeys(itertools.chain(*(one.folders for one in layouts.values()))))
    return first._replace(splits=tuple(layouts), read=read, folders=folders, unlabelled=())


def describe_layout(root: Path, found: Found, layout: str = AUTO) -> str:
    """Returns a line with the layout, its splits, and other layouts that fit with their flags."""
    where = str(root) if found.place == root else f"{root}, in {found.place.relative_to(root)}"
    line = f"{where}: {found.layout.tool}; splits on disk: {', '.join(found.layout.splits)}"
    names = [name for name in FINDERS if name != found.layout.name] if layout == AUTO else []
    with listings_kept():
        others = list(_fitting(names, found.place))
        is_outer = found.place != root and layout == AUTO
        last = list(_fitting(list(itertools.chain(*_LAST)), root)) if is_outer else []
    for other in last:
        line += f"; --config.data.layout={other.name} would read {other.tool} in {root} instead"
    for other in others:
        line += f"; --config.data.layout={other.name} would read {other.tool} instead"
    return line


def _first(names: Sequence[str], place: Path) -> Found | DataError | None:
    """The first layout that fits a place, or its error if it has a broken file.

    One without a training split is not taken if a later one has it.
    """
    for number, name in enumerate(names):
        try:
            layout = FINDERS[name](place)
        except DataError as error:
            other = next(_fitting(names[number + 1 :], place), None)
            if other is None:
                return error
            if isinstance(error, NoAnnotationsError):
                return Found(other, place)
            return error.extended(f"; or set data.layout={other.name} to read {other.tool} instead")
        if layout is not None:
            others = [] if _trains(layout) else _fitting(names[number + 1 :], place)
            return Found(next(filter(_trains, others), layout), place)
    return None


def _trains(layout: Layout) -> bool:
    return find_split("train", layout.splits) is not None


def _fitting(names: Sequence[str], place: Path) -> Iterator[Layout]:
    """The layouts that fit a place, in order, but for those with a broken file."""
    for name in names:
        with contextlib.suppress(DataError):
            if (layout := FINDERS[name](place)) is not None:
                yield layout


def _folders(place: Path) -> list[Path]:
    return [place / name for name in list_folder(place).folders]


def _several(root: Path, found: list[Found]) -> DataError:
    shown = [f"{f.place.relative_to(root)}/ ({f.layout.tool})" for f in found[:_SHOWN]]
    what = f"has a dataset in {', '.join(shown)}{', ...' if len(found) > _SHOWN else ''}"
    return DataError("layout", root, "", what, "set data.root to one folder; data.mix adds others")


def _unrecognized(root: Path, layout: str) -> DataError:
    others = [] if layout == AUTO else [name for name in FINDERS if name != layout]
    if found := next(_fitting(others, root), None):
        what = f"is not in the layout {layout!r} but in {found.name!r}"
        return DataError("layout", root, "", what, f"set data.layout={found.name}")
    what = "no layout fits" if layout == AUTO else f"it is not in the layout {layout!r}"
    return unrecognized(root, what)
