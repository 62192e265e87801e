"""Pascal VOC's XML in folders of one's own: own classes, one XML file for each image.

Recognised: Annotations/ with JPEGImages/ and ImageSets/Main/; annotations/ with images/; XML files
beside the images; each of these also in split folders such as train/ and test/. The official
releases, with their twenty classes and checks, are read by voc.py.
"""

import collections
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.annotation_fields import short
from retinanet_jax.data.formats.folder_files import (
    Listing,
    checked_class_names,
    is_split_name,
    list_folder,
    read_class_names,
    read_head,
    read_many,
    read_text,
    relative_name,
    stem_of,
    subfolder,
    suffix_of,
    walk,
)
from retinanet_jax.data.formats.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.formats.voc_xml import parse_xml, read_objects, stated_size

OTHER_FILE_NAME = "filename of another image, the image of the XML's own name taken"
NO_XML = "listed image without an XML file, taken as without objects"
_ANNOTATIONS = ("Annotations", "xmls", "xml", "labels", "label")
_IMAGES = ("JPEGImages", "images", "image", "imgs", "img")
_CLASS_FILES = ("classes.txt", "labels.txt", "predefined_classes.txt")


class _Part(NamedTuple):
    """A folder with annotations and the folder of their images; the same where they are beside."""

    annotations: Path
    images: Path
    image_set: Path | None = None


class VocFolder(NamedTuple):
    """Where the parts of a dataset are: `splits` by name, `class_names` where a file lists them."""

    root: Path
    splits: dict[str, _Part]
    class_names: tuple[str, ...] | None


def find(root: Path) -> Layout | None:
    """The dataset in a folder, or in the only folder in it, such as VOCdevkit/VOC2012.

    Raises:
      DataError: its list of class names is broken.
    """
    folder = root
    for _ in range(3):
        splits = _splits(folder)
        if splits:
            break
        inner = list_folder(folder).folders
        if len(inner) != 1:
            return None
        folder = folder / inner[0]
    else:
        return None
    places = [root, folder, *(place for part in splits.values() for place in part[:2])]
    dataset = VocFolder(root, splits, _class_names(dict.fromkeys(places)))
    beside = all(part.annotations == part.images for part in splits.values())
    tool = "Pascal VOC XML beside the images" if beside else "Pascal VOC XML"
    return Layout("voc", tool, tuple(splits), functools.partial(read_split, dataset), (root,))


def _splits(root: Path) -> dict[str, _Part]:
    """The splits of a folder; 'train' where nothing divides it; {} where it is of another kind."""
    part = _part(root)
    if part is not None:
        lists = _image_sets(root)
        if lists:
            return {stem_of(path.name): part._replace(image_set=path) for path in lists}
        inner = [n for n in list_folder(part.annotations).folders if is_split_name(n)]
        if inner:  # annotations/train with images/train, or images/ for all
            places = {n: subfolder(part.images, n) or part.images for n in inner}
            return {n: _Part(part.annotations / n, places[n]) for n in inner}
        return {"train": part}
    names = [name for name in list_folder(root).folders if is_split_name(name)]
    parts = {name: _part(root / name) for name in names}
    return {name: part for name, part in parts.items() if part is not None}


def _part(folder: Path) -> _Part | None:
    """The annotations and images of one folder, if it has any outside of its split folders."""
    annotations = subfolder(folder, *_ANNOTATIONS)
    if annotations is not None and _has_voc_xml(annotations):
        return _Part(annotations, subfolder(folder, *_IMAGES) or folder)
    files = list_folder(folder).with_suffix(".xml")
    if any(_is_voc_xml(folder / name) for name in files[:20]):
        images = folder if list_folder(folder).images() else subfolder(folder, *_IMAGES)
        return _Part(folder, images or folder)
    return None


def _has_voc_xml(folder: Path) -> bool:
    """Whether the first XML files below a folder are VOC's."""
    for listing in walk(folder):
        files = listing.with_suffix(".xml")
        if files:
            return any(_is_voc_xml(Path(listing.path) / name) for name in files[:20])
    return False


def _is_voc_xml(path: Path) -> bool:
    head = read_head(path, 2000).replace(b"\0", b"")  # of UTF-16
    return re.search(rb"<annotation[\s>]", head) is not None


def _image_sets(root: Path) -> list[Path]:
    """The lists of ImageSets/Main, without those of single classes (cat_train.txt)."""
    sets = subfolder(root, "ImageSets")
    main = sets and (subfolder(sets, "Main") or sets)
    if main is None:
        return []
    stems = [stem_of(name) for name in list_folder(main).with_suffix(".txt")]
    whole = [s for s in stems if not any(s.endswith(f"_{other}") for other in stems)]
    return [main / f"{stem}.txt" for stem in whole]


def _class_names(folders: dict[Path, None]) -> tuple[str, ...] | None:
    """The names in classes.txt and the like, or in CVAT's labelmap.txt, of the first folder."""
    for folder in folders:
        for name in _CLASS_FILES:
            if (folder / name).is_file():
                return read_class_names(folder / name)
        path = folder / "labelmap.txt"
        if path.is_file():
            lines = [line.strip() for line in read_text(path).splitlines()]
            names = [line.split(":")[0] for line in lines if line and not line.startswith("#")]
            # CVAT adds it for masks.
            return checked_class_names([name for name in names if name != "background"], path)
    return None


def read_split(dataset: VocFolder, split: str, guard: Guard) -> RawSplit:
    """The images of a split with their objects; see raw.Layout."""
    part, notes = dataset.splits[split], []
    names = _ImageNames(part.images)
    files = dict(_all_xml(part.annotations))
    listed = _listed(part.image_set, files, names, guard) if part.image_set else files
    contents = read_many(path for path in listed.values() if path)
    images = []
    for stem, path in listed.items():
        content = next(contents) if path else None
        with guard:
            if path is None:
                image, size, objects = names.path(names.by_stem[stem][0]), None, ()
                notes.append((NO_XML, image))
            elif isinstance(content, DataError):
                raise content
            else:
                root = parse_xml(content, path)
                _check_root(root, path)
                image, size = _image_of(root, stem, names, path, notes), stated_size(root)
                objects = read_objects(root, path, dataset.class_names, guard, notes)
            name, annotation_file = relative_name(image, dataset.root), path or part.image_set
            images.append(RawImage(name, Path(image), Path(annotation_file), objects, size=size))
    return RawSplit(tuple(images), dataset.class_names, notes=tuple(notes))


def _check_root(root: ElementTree.Element, path: str) -> None:
    if root.tag != "annotation":
        what = f"is <{root.tag[:40]}>, not <annotation>"
        raise DataError("annotation file", path, "", what, "export it as Pascal VOC XML")


def _all_xml(folder: Path) -> Iterator[tuple[str, str]]:
    """(name without suffix relative to the folder, path) of the XML files below a folder."""
    for listing in walk(folder):
        for name in listing.with_suffix(".xml"):
            path = os.path.join(listing.path, name)
            yield stem_of(relative_name(path, folder)), path


def _listed(
    image_set: Path, files: dict[str, str], names: "_ImageNames", guard: Guard
) -> dict[str, str | None]:
    """The entries of `files` that a list names; None for an image without an XML file.

    CVAT writes none for an image without objects.
    """
    listed: dict[str, str | None] = {}
    for number, line in enumerate(read_text(image_set).splitlines(), 1):
        whole = line.strip().replace("\\", "/")
        if not whole:
            continue
        quoted = re.match(r'"(.+?)"', whole)  # CVAT's, of a name with a space
        first = quoted[1] if quoted else whole.split()[0]
        stems = [whole, first, *(stem_of(n) for n in (whole, first) if suffix_of(n))]
        stem = next((stem for stem in stems if stem in files), None)
        stem = stem or next((stem for stem in stems if stem in names.by_stem), None)
        with guard:
            if stem is None:
                what = f"there is neither an XML file nor an image of the name {short(first)}"
                fix = "add the files, or delete the line"
                raise DataError("missing annotation", image_set, f"line {number}", what, fix)
            listed[stem] = files.get(stem)
    return listed


class _ImageNames:
    """The image files below a folder, by name and by name without suffix, relative to it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: set[str] = set()
        self.by_stem: dict[str, list[str]] = collections.defaultdict(list)
        for listing in walk(folder):
            for name in self._names(listing):
                self.names.add(name)
                self.by_stem[stem_of(name)].append(name)

    def _names(self, listing: Listing) -> list[str]:
        start = relative_name(os.path.join(listing.path, ""), self.folder)
        start = start if listing.path != str(self.folder) else ""
        return [start + name for name in listing.images()]

    def path(self, name: str) -> str:
        """The path of an image by its name."""
        return os.path.join(self.folder, name)


def _image_of(
    root: ElementTree.Element,
    stem: str,
    images: _ImageNames,
    path: str,
    notes: list[tuple[str, str]],
) -> str:
    """The path of the image that an XML file annotates; it may be missing.

    The image of the XML file's own name, as the VOC devkit has it; `filename`, which is often out
    of date, decides between several of them, or names the image where there is none.
    """
    stated = root.findtext("filename", "").strip().replace("\\", "/")
    folder = os.path.dirname(stem)
    beside = os.path.join(folder, os.path.basename(stated))
    same_stem = images.by_stem.get(stem, [])
    named = next((name for name in (stated, beside) if name in images.names), None)
    if named is not None and (named in same_stem or not same_stem):
        return images.path(named)
    if len(same_stem) > 1:
        what = f"may be for {' or '.join(same_stem)}"
        raise DataError("ambiguous image", path, "filename", what, "name one of them in filename")
    if same_stem:
        if named is not None:
            notes.append((OTHER_FILE_NAME, path))
        return images.path(same_stem[0])
    # Suffix wrong or missing.
    by_stated = images.by_stem.get(stem_of(beside)) or images.by_stem.get(beside) or []
    if len(by_stated) == 1 and beside:
        return images.path(by_stated[0])
    return images.path(beside or f"{stem}.jpg")
