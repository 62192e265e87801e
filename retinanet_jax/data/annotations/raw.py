"""What annotation readers return: images and objects as the files state them, unchecked.

Each layout (COCO, YOLO, VOC XML, labelme, CSV, ...) has a module with two functions:

    find(root) -> Layout | None            looks at names and the first bytes of files, quickly
    Layout.read(split, guard) -> RawSplit  reads the annotations of one split

Everything after that is the same for all layouts (check_split.py): sizes of images, EXIF
orientation, checks of boxes and ids, categories over all splits. A reader therefore does not open
image files, does not clip or check boxes, and leaves out only what it cannot read at all.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import Guard

EVERY_CLASS = ""  # in place of a class name: of a region whose objects of any class are ignored


class RawObject(NamedTuple):
    """One object as annotated.

    class_name: name of its category, or EVERY_CLASS.
    box: x, y, width, height; in pixels, or in fractions of the image if `RawImage.normalized`.
    where: the entry in its file, for messages: 'line 3', 'object 2'; '' stands for 'annotation id'
        and `id`.
    area: area of the object in square pixels; None uses the area of the box.
    crowd: whether the box is a region of many objects, which is ignored.
    id: annotation id; with None, it is numbered later.
    """

    class_name: str
    box: tuple[float, float, float, float]
    where: str = ""
    area: float | None = None
    crowd: bool = False
    id: int | None = None


class RawImage(NamedTuple):
    """One image as annotated.

    file_name: file name as annotated, with / between folders.
    path: path of this file, which need not exist.
    annotation_file: the file that annotates it, for messages.
    objects: objects of the image.
    where: the entry in that file, for messages; '' if the file describes only this image.
    size: annotated (height, width) in pixels; None if it is not annotated.
    normalized: whether boxes are fractions of the image size.
    id: image id; with None, it is numbered later.
    """

    file_name: str
    path: AnyPath
    annotation_file: AnyPath
    objects: tuple[RawObject, ...]
    where: str = ""
    size: tuple[int, int] | None = None
    normalized: bool = False
    id: int | None = None


class RawSplit(NamedTuple):
    """One split as annotated.

    images: images in the order of the files.
    class_names: class names in the order of the labels; None if the annotations only use names,
        which are then sorted.
    category_ids: annotated ids of `class_names`; None numbers them from 1.
    notes: (reason, where) pairs for what the reader changed.
    box_form: how the files write a box, for messages: 'size' x, y, width, height; 'corners' xmin,
        ymin, xmax, ymax; 'center' x and y of the centre, width, height.
    copies: paths of further files of the same images, which are not reported as unannotated.
    """

    images: tuple[RawImage, ...]
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    notes: tuple[tuple[str, str], ...] = ()
    box_form: str = "size"
    copies: tuple[str, ...] = ()


class Layout(NamedTuple):
    """A folder whose layout was recognized.

    name: value of `data.layout`: 'coco', 'yolo', 'voc', ...; see find_layout.FINDERS.
    tool: what writes such folders, for the log: 'COCO JSON as exported by Roboflow'.
    splits: names of the splits on disk.
    read: function of the name of a split and the guard for errors of single entries; returns the
        content of the split. Raises DataError for a file that cannot be read at all.
    folders: folders of the images and annotations, and single files outside of these; () is only
        the root. Changes in them are detected, and images in them without annotations are
        reported.
    unlabelled: splits without any annotation, which are reported and not used.
    suffixes: suffixes of annotation files that file_facts.fingerprint does not count by default.
    """

    name: str
    tool: str
    splits: tuple[str, ...]
    read: Callable[[str, Guard], RawSplit]
    folders: tuple[Path, ...] = ()
    unlabelled: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()


Finder = Callable[[Path], Layout | None]
