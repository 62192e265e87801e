"""Datasets with one annotation file for each image: where the files and their images are.

Annotation files are beside the images or in a folder of their own, with or without split folders.
"""

import collections
import functools
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.annotations.class_lists import find_class_names
from retinanet_jax.data.annotations.folder_files import (
    Listing,
    annotation_folders,
    has_images,
    list_folder,
    read_head,
    relative_name,
    stem_of,
    subfolder,
    walk,
)
from retinanet_jax.data.annotations.split_names import is_split_name, is_training
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

_IMAGES = ("JPEGImages", "images", "image_2", "image", "imgs", "img", "data")
# Files that a folder is judged by, and files among which these are: those of images without objects
# have no text.
_LOOKED_AT, _MAX_FILES = 20, 1000
BESIDE = "annotation file in the folder of no split, left out"


class Part(NamedTuple):
    """A folder with annotations and the folder of their images, which may be the same.

    image_set: file that lists the images of a split; None uses all images.
    apart: folders in both that are splits of their own.
    """

    annotations: Path
    images: Path
    image_set: Path | None = None
    apart: tuple[str, ...] = ()


class Kind(NamedTuple):
    """Defines which files are annotations: their suffix, content check and folders."""

    suffix: str
    is_one: Callable[[Path], bool]
    folders: Sequence[str]


class PartsDataset(NamedTuple):
    """The places of the parts of a dataset, and its class names if a file lists them."""

    root: Path
    splits: dict[str, Part]
    class_names: tuple[str, ...] | None


def find_part(folder: Path, kind: Kind) -> Part | None:
    """Returns the annotations of a folder and their images; None if it has none."""
    annotations = subfolder(folder, *kind.folders)
    if annotations is not None and has_annotations(annotations, kind):
        return Part(annotations, subfolder(folder, *_IMAGES) or folder)
    listing = list_folder(folder)
    if any(map(kind.is_one, _judged(listing, kind))):
        images = None if listing.images() else subfolder(folder, *_IMAGES)
        return Part(folder, images or folder)
    others = [f for f in annotation_folders(folder) if not is_split_name(f.name)]
    others = [other for other in others if has_annotations(other, kind)]
    return Part(others[0], _images_in(folder)) if len(others) == 1 else None


def _images_in(folder: Path) -> Path:
    """The folder of the images in a folder: of a usual name, or the only one with images."""
    inner = [folder / name for name in list_folder(folder).folders]
    with_images = [path for path in inner if list_folder(path).images()]
    return subfolder(folder, *_IMAGES) or (with_images[0] if len(with_images) == 1 else folder)


def find_parts(root: Path, kind: Kind) -> dict[str, Part]:
    """Returns the splits of a folder, by name.

    Split folders divide the annotations. Without one to train on, 'train' is what is beside them,
    or all where nothing divides the folder. {} means that the folder has no annotations, or that
    those to train on are in other folders, which are datasets of their own.
    """
    part, names = find_part(root, kind), list_folder(root).folders
    splits = _parts_in(root, filter(is_split_name, names), kind)
    if part is None:
        if not splits or any(map(is_training, splits)):
            return splits
        others = itertools.filterfalse(is_split_name, names)
        return {} if _parts_in(root, others, kind) else splits
    splits |= _inner_parts(part, kind)
    rest = part._replace(apart=tuple(splits))
    if any(map(is_training, splits)) or not has_annotations(rest.annotations, kind, rest.apart):
        return splits
    return {"train": rest, **splits}


def _parts_in(root: Path, names: Iterable[str], kind: Kind) -> dict[str, Part]:
    found = {name: find_part(root / name, kind) for name in names}
    return {name: part for name, part in found.items() if part is not None}


def _inner_parts(part: Part, kind: Kind) -> dict[str, Part]:
    """The splits that divide a folder of annotations.

    Their images are in a folder of their name beside the other images (images/train), in their own
    folder, or in one folder for all splits.
    """
    found = {}
    for name in filter(is_split_name, list_folder(part.annotations).folders):
        folder = part.annotations / name
        images = subfolder(part.images, name) if part.images != part.annotations else None
        if not has_annotations(folder, kind):
            continue
        own = None if images else find_part(folder, kind)
        if own is None or not has_images(own.images):
            own = Part(folder, images or subfolder(part.images, name) or part.images)
        found[name] = own
    return found


def left_out(folder: Path, parts: Iterable[Part], kind: Kind) -> list[tuple[str, str]]:
    """Returns notes on the annotation files below a folder that are in none of all its parts."""
    read = {_identity(listing) for part in parts for listing in _walk_annotations(part)}
    beside = (listing for listing in walk(folder) if listing.with_suffix(kind.suffix))
    places = (listing for listing in beside if _identity(listing) not in read)
    paths = (Path(place.path, name) for place in places for name in place.with_suffix(kind.suffix))
    return [(BESIDE, str(path)) for path in paths if kind.is_one(path)]


def _identity(listing: Listing) -> tuple[int, int]:
    """The same for a folder and a link to it."""
    status = os.stat(listing.path)
    return status.st_dev, status.st_ino


def _walk_annotations(part: Part) -> Iterator[Listing]:
    return walk(part.annotations, {os.path.join(part.annotations, name) for name in part.apart})


def has_annotations(folder: Path, kind: Kind, apart: Iterable[str] = ()) -> bool:
    """Returns whether the first files of a folder, or of some below it, are annotations.

    Folders `apart` in it do not count.
    """
    listings = walk(folder, {os.path.join(folder, name) for name in apart})
    judged = itertools.islice((one for one in listings if one.with_suffix(kind.suffix)), _LOOKED_AT)
    return any(kind.is_one(file) for listing in judged for file in _judged(listing, kind))


def _judged(listing: Listing, kind: Kind) -> Iterator[Path]:
    """The first files with text."""
    files = [Path(listing.path, name) for name in listing.with_suffix(kind.suffix)[:_MAX_FILES]]
    return itertools.islice((file for file in files if read_head(file, 1)), _LOOKED_AT)


def class_names_of(
    root: Path, parts: dict[str, Part], left_out: Sequence[str] = ()
) -> tuple[str, ...] | None:
    """Returns the names in classes.txt and the like; None if there is no such file.

    Some names, such as backgrounds, are left out.

    Raises:
      DataError: the file is broken, or several files differ.
    """
    return find_class_names(searched_folders(root, parts), left_out=left_out)


def searched_folders(root: Path, parts: dict[str, Part]) -> list[Path]:
    """Returns the folders that may have a list of the classes."""
    inner = [folder for part in parts.values() for folder in part[:2] if folder != root]
    return list(dict.fromkeys([root, *inner, *(folder.parent for folder in inner)]))


def annotation_files(part: Part, suffix: str) -> dict[str, str]:
    """Returns the paths of the annotation files of a part, by relative name without suffix."""
    found: dict[str, str] = {}
    for listing in _walk_annotations(part):
        for file in listing.with_suffix(suffix):
            path = os.path.join(listing.path, file)
            name = relative_name(path, part.annotations)
            # Beside a.xml, a.XML has no image of its own, which is then an error.
            found[name if stem_of(name) in found else stem_of(name)] = path
    return found


class ImageNames:
    """The images below a folder by their names, relative to it, with and without suffix.

    Args:
      stems: stems of annotation files, so that an image of another file is not used.
      apart: folders in it that are left out, see Part.

    names: also of HEIC files that have a copy, see Listing.images: annotations may name these.
    by_stem: of the others.
    """

    def __init__(self, folder: Path, stems: Collection[str] = (), apart: Iterable[str] = ()):
        self.folder, self._stems = folder, stems
        self.names: set[str] = set()
        self.by_stem: dict[str, list[str]] = collections.defaultdict(list)
        for listing in walk(folder, {os.path.join(folder, name) for name in apart}):
            start = relative_name(os.path.join(listing.path, ""), folder)
            start = "" if listing.path == str(folder) else start
            self.names.update(start + name for name in listing.with_suffix(*IMAGE_SUFFIXES))
            for name in listing.images():
                self.by_stem[stem_of(start + name)].append(start + name)

    def path(self, name: str) -> str:
        """Returns the path of an image by its name."""
        return os.path.join(self.folder, name)

    @functools.cached_property
    def _others(self) -> dict[str, list[str]]:
        """The images without an annotation file of the same stem by their stems without folders."""
        found = collections.defaultdict(list)
        for stem in self.by_stem.keys() - self._stems:
            found[os.path.basename(stem)] += self.by_stem[stem]
        return dict(found)

    def only(self, stem: str, path: Path | str, field: str = "") -> str | None:
        """Returns the path of the only image with a stem, possibly in another folder, or None.

        Raises:
          DataError: several images fit; `path` and `field` name the entry that should select one.
        """
        found = self.by_stem.get(stem) or [stem] * (stem in self.names)  # the file a.jpg.xml
        found = found or self._others.get(os.path.basename(stem), [])
        if len(found) > 1:
            what = f"may belong to {' or '.join(sorted(found)[:3])}"
            fix = f"name one of them in {field}" if field else "rename the others"
            raise DataError("ambiguous image", path, field, what, fix)
        return self.path(found[0]) if found else None
