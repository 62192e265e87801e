"""Folders of Pascal VOC's XML with their own classes, one XML file for each image.

Recognised: Annotations/ with JPEGImages/ and ImageSets/Main/; annotations/ with images/; XML files
beside the images; each of these also in split folders such as train/ and test/. The official
releases, with their twenty classes and checks, are read by voc_official.py.
"""

import collections
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.class_lists import checked_class_names
from retinanet_jax.data.annotations.folder_files import (
    ascii_head,
    list_folder,
    read_many,
    read_text,
    relative_name,
    stem_of,
    subfolder,
    suffix_of,
)
from retinanet_jax.data.annotations.folder_parts import (
    ImageNames,
    Kind,
    Part,
    PartsDataset,
    annotation_files,
    class_names_of,
    find_part,
    find_parts,
    left_out,
    searched_folders,
)
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.data_errors import DataError, Guard
from retinanet_jax.data.formats.voc_xml import parse_xml, read_objects, stated_size

OTHER_FILE_NAME = "filename of another image, image named like the XML file used"
NO_XML = "listed image without an XML file, read as without objects"
_ANNOTATIONS = ("Annotations", "xmls", "xml", "labels", "label")


def find(root: Path) -> Layout | None:
    """Returns the dataset in a folder, or in the only folder in it, such as VOCdevkit/VOC2012.

    Raises:
      DataError: its list of class names is broken.
    """
    folder = root
    while not (splits := find_parts(folder, _KIND)):
        inner = list_folder(folder).folders
        if len(inner) != 1 or len(folder.parts) > len(root.parts) + 1:
            return None
        folder = folder / inner[0]
    splits = _with_lists(folder, splits)
    dataset = PartsDataset(root, splits, _class_names(folder, splits))
    beside = all(part.annotations == part.images for part in splits.values())
    tool = "Pascal VOC XML beside the images" if beside else "Pascal VOC XML"
    return Layout("voc", tool, tuple(splits), functools.partial(read_split, dataset), (root,))


def _is_voc_xml(path: Path) -> bool:
    head = ascii_head(path, 2000)
    return re.search(rb"<annotation[\s>]", head) is not None


_KIND = Kind(".xml", _is_voc_xml, _ANNOTATIONS)


def _with_lists(folder: Path, splits: dict[str, Part]) -> dict[str, Part]:
    """The splits that lists define, and the split folders of which they name no file."""
    part = find_part(folder, _KIND) or (splits["train"] if list(splits) == ["train"] else None)
    lists = _image_sets(folder) if part else []
    if not lists:
        return splits
    names = {stem for path in lists for line in _lines(path) for stem in line.stems}
    listed = {stem_of(path.name): part._replace(image_set=path) for path in lists}
    for split, inner in splits.items():
        stems = annotation_files(inner, _KIND.suffix)
        is_named = not names.isdisjoint([*stems, *(f"{split}/{stem}" for stem in stems)])
        if inner.annotations != part.annotations and not is_named:
            listed.setdefault(split, inner)
    return listed


def _image_sets(root: Path) -> list[Path]:
    """The lists of ImageSets/Main, without those of single classes (cat_train.txt)."""
    sets = subfolder(root, "ImageSets")
    main = sets and (subfolder(sets, "Main") or sets)
    if main is None:
        return []
    stems = [stem_of(name) for name in list_folder(main).with_suffix(".txt")]
    whole = [s for s in stems if not any(s.endswith(f"_{other}") for other in stems)]
    return [main / f"{stem}.txt" for stem in whole]


def _class_names(root: Path, splits: dict[str, Part]) -> tuple[str, ...] | None:
    """The names in classes.txt and the like, or in CVAT's labelmap.txt."""
    for path in (folder / "labelmap.txt" for folder in searched_folders(root, splits)):
        if path.is_file():
            lines = [line.strip() for line in read_text(path).splitlines()]
            names = [line.split(":")[0] for line in lines if line and not line.startswith("#")]
            # CVAT adds it for masks.
            return checked_class_names([name for name in names if name != "background"], path)
    return class_names_of(root, splits)


def read_split(dataset: PartsDataset, split: str, guard: Guard) -> RawSplit:
    """Returns the images of a split with their objects; see raw.Layout."""
    part, notes = dataset.splits[split], left_out(dataset.root, dataset.splits.values(), _KIND)
    files = annotation_files(part, _KIND.suffix)
    names = ImageNames(part.images, files.keys(), part.apart)
    listed = _listed(part.image_set, files, names, guard) if part.image_set else files
    contents = read_many([path for path in listed.values() if path])
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
    return RawSplit(tuple(images), dataset.class_names, notes=tuple(notes), box_form="corners")


def _check_root(root: ElementTree.Element, path: str) -> None:
    if root.tag != "annotation":
        what = f"is <{root.tag[:40]}>, not <annotation>"
        raise DataError("annotation file", path, "", what, "export it as Pascal VOC XML")


def _listed(
    image_set: Path, files: dict[str, str], names: ImageNames, guard: Guard
) -> dict[str, str | None]:
    """The entries of `files` that a list names; None for an image without an XML file.

    CVAT writes none for an image without objects. A name without its folder is that of the file in
    the folder of the split, or of the only file.
    """
    listed: dict[str, str | None] = {}
    in_folders = collections.defaultdict(list)
    for stem in files:
        in_folders[os.path.basename(stem)].append(stem)
    for line in _lines(image_set):
        own = [f"{stem_of(image_set.name)}/{stem}" for stem in line.stems]
        only = [same[0] for s in line.stems if len(same := in_folders.get(s, [])) == 1]
        found = [
            *(stem for stem in line.stems if stem in files),
            *(stem for stem in line.stems if stem in names.by_stem),
            *(stem for stem in own if stem in files),
            *only,
        ]
        with guard:
            if not found:
                what = f"neither an XML file nor an image is named {short(line.name)}"
                fix = "add the files, or delete the line"
                raise DataError("missing annotation", image_set, line.where, what, fix)
            listed[found[0]] = files.get(found[0])
    return listed


class _Line(NamedTuple):
    """A line of a list: the name in it, and the stems that it may mean."""

    where: str
    name: str
    stems: list[str]


def _lines(image_set: Path) -> Iterator[_Line]:
    for number, line in enumerate(read_text(image_set).splitlines(), 1):
        whole = line.strip().replace("\\", "/")
        if not whole:
            continue
        quoted = re.match(r'"(.+?)"', whole)  # CVAT's, of a name with a space
        first = quoted[1] if quoted else whole.split()[0]
        stems = [whole, first, *(stem_of(n) for n in (whole, first) if suffix_of(n))]
        yield _Line(f"line {number}", first, stems)


def _image_of(
    root: ElementTree.Element,
    stem: str,
    images: ImageNames,
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
    if (only := images.only(stem, path, "filename")) is not None:
        if named is not None:
            notes.append((OTHER_FILE_NAME, path))
        return only
    # Suffix wrong or missing.
    by_stated = images.by_stem.get(stem_of(beside)) or images.by_stem.get(beside) or []
    if len(by_stated) == 1 and beside:
        return images.path(by_stated[0])
    return images.path(beside or f"{stem}.jpg")
