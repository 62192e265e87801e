"""V7's Darwin JSON 2.0 and 1.0: a file for each image, as V7 exports them and darwin-py pulls them.

Bounding boxes are read, including those of polygons, ellipses, masks, cuboids and tables. Tags,
points, lines and skeletons have no box and are left out, like videos and volumes. In a folder of
darwin-py, the release `latest` and its lists `default` are read. Random lists come before
stratified ones, as in darwin-py.
"""

import functools
import re
from pathlib import Path

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import (
    MAX_BYTES,
    ascii_head,
    decode_text,
    list_folder,
    parse_json,
    read_many,
    relative_name,
    subfolder,
)
from retinanet_jax.data.annotations.folder_parts import (
    Kind,
    Part,
    PartsDataset,
    annotation_files,
    find_parts,
    left_out,
)
from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawObject, RawSplit
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.darwin_items import Slot, slots_of
from retinanet_jax.data.formats.darwin_lists import UNLISTED, listed_files, split_lists, unlisted
from retinanet_jax.data.formats.darwin_shapes import box_of, boxes_of_masks

NOT_IMAGES = "videos and volumes, left out"
_FOLDERS = ("annotations", "json", "labels")
_HEAD = 1 << 16
_ANNOTATIONS_FIRST = re.compile(rb'[^{]*\{\s*"annotations"\s*:\s*\[')
_ITS_FIELDS = re.compile(rb'"slot_names"|"(polygon|bounding_box)"\s*:\s*\{')


def find(root: Path) -> Layout | None:
    """Returns the dataset in a folder.

    Raises:
      DataError: there are several releases or sets of lists, and it is unclear which one is meant.
    """
    release = _release(root)
    splits = find_parts(release or root, _KIND)
    if not splits:
        return None
    if release is not None:
        images = subfolder(root, "images") or root
        splits = {name: part._replace(images=images) for name, part in splits.items()}
    elif root.parent.name == "releases" and all(p.images == root for p in splits.values()):
        place = root.parent.parent
        what = f"is a release, whose images are in {place / 'images'}"
        raise DataError("layout", root, "", what, f"set data.root to {place}")
    if list(splits) == ["train"] and (lists := split_lists(release or root)):
        part = splits["train"]
        splits = {name: part._replace(image_set=path) for name, path in lists.items()}
    dataset = PartsDataset(root, splits, None)
    tool = f"V7 Darwin JSON{', as pulled by darwin-py' if release else ''}"
    read = functools.partial(_read_split, dataset, release or root)
    return Layout("darwin", tool, tuple(splits), read, (root,))


def _is_darwin(path: Path) -> bool:
    head = ascii_head(path, _HEAD)
    if _ANNOTATIONS_FIRST.match(head) and _ITS_FIELDS.search(head):
        head = ascii_head(path, MAX_BYTES)
    is_v2 = re.search(rb'"item"\s*:\s*\{', head) and re.search(rb'"slots"\s*:\s*\[', head)
    is_v1 = re.search(rb'"image"\s*:\s*\{', head) and re.search(rb'"original_filename"\s*:', head)
    return bool(is_v2 or is_v1)


_KIND = Kind(".json", _is_darwin, _FOLDERS)


def _release(root: Path) -> Path | None:
    """The release to read: 'latest', or the only one; None where there is none.

    Raises:
      DataError: there are several releases, and none is named latest.
    """
    folders = [root / "releases" / name for name in list_folder(root / "releases").folders]
    found = [folder for folder in folders if find_parts(folder, _KIND)]
    latest = [folder for folder in found if folder.name == "latest"] or found
    if len(latest) > 1:
        what = f"has the releases {', '.join(folder.name for folder in found)}"
        fix = "link releases/latest to one of them, or delete the others"
        raise DataError("several releases", root, "", what, fix)
    return latest[0] if latest else None


def _read_split(dataset: PartsDataset, folder: Path, split: str, guard: Guard) -> RawSplit:
    """The images of a split with their objects, in a folder or release; see raw.Layout."""
    part = dataset.splits[split]
    files = annotation_files(part, _KIND.suffix)
    notes = left_out(folder, dataset.splits.values(), _KIND)
    if part.image_set is not None:
        if split == next(iter(dataset.splits)):
            lists = [other.image_set for other in dataset.splits.values() if other.image_set]
            notes += [(UNLISTED, path) for path in unlisted(lists, files)]
        files = listed_files(part.image_set, files, guard)
    images = []
    finder = _finder(dataset, split, part)
    for (stem, file), data in zip(files.items(), read_many(list(files.values())), strict=True):
        path = Path(file)
        with guard:
            if isinstance(data, DataError):
                raise data
            content = parse_json(decode_text(data, path), path)
            if not isinstance(content, dict) or not {"item", "image"} & content.keys():
                continue  # another JSON file of the folder
            for slot in slots_of(content, stem, path):
                if not slot.is_image:
                    notes.append((NOT_IMAGES, str(path)))
                    continue
                with guard:
                    image = finder.find_first(slot.names, path, slot.where)
                    objects = _objects(slot, path, guard, notes)
                    place = relative_name(image, dataset.root), Path(image), path
                    images.append(RawImage(*place, objects, slot.where, slot.size))
    return RawSplit(tuple(images), notes=(*notes, *finder.notes))


def _finder(dataset: PartsDataset, split: str, part: Part) -> ImageFinder:
    alone = len(dataset.splits) == 1 or part.image_set is not None
    bases = (part.images, part.annotations, dataset.root)
    return ImageFinder(dataset.root, "" if alone else split, bases)


def _objects(
    slot: Slot, path: Path, guard: Guard, notes: list[tuple[str, str]]
) -> tuple[RawObject, ...]:
    """The objects of an image; errors of single objects are for the guard."""
    objects, found = [], set()
    masks = boxes_of_masks(slot.annotations, slot.size, path, guard)
    for where, entry in slot.annotations:
        with guard:
            box = box_of(entry, masks, path, where, found)
            if box is not None:
                name = fields.class_name(entry.get("name"), None, path, where)
                objects.append(RawObject(name, box, where))
    notes.extend((reason, str(path)) for reason in sorted(found))
    return tuple(objects)
