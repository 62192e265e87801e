"""What a reader of annotations returns: images and objects as the files state them, unchecked.

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

    class_name: of its category, or EVERY_CLASS.
    box: x, y, width, height; in pixels, or as shares of the image where `RawImage.normalized`.
    where: the entry in its file, for messages: 'line 3', 'object 2'; '' stands for 'annotation id'
        and `id`.
    area: of the object in square pixels; None takes the box's.
    crowd: whether the box stands for a region of many objects, which is ignored.
    id: as annotated; None has it numbered.
    """

    class_name: str
    box: tuple[float, float, float, float]
    where: str = ""
    area: float | None = None
    crowd: bool = False
    id: int | None = None


class RawImage(NamedTuple):
    """One image as annotated.

    file_name: as the annotations write it, with / between folders.
    path: of the file that it names; the file need not exist.
    annotation_file: the file that annotates it, for messages.
    objects: of the image.
    where: the entry in that file, for messages; '' where the file is about this image alone.
    size: (height, width) as annotated; None where the annotations do not say.
    normalized: whether boxes are shares of the image's size.
    id: as annotated; None has it numbered.
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

    images: in the order of the files.
    class_names: in the order of the labels; None where the annotations only use names, which are
        then taken in alphabetical order.
    category_ids: of `class_names`, as annotated; None numbers them from 1.
    notes: what the reader changed, by reason, as (reason, where) pairs: 'polygon, its bounding box
        taken'.
    box_form: how the files write a box, for messages: 'size' x, y, width, height; 'corners' xmin,
        ymin, xmax, ymax; 'center' x and y of the centre, width, height.
    """

    images: tuple[RawImage, ...]
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    notes: tuple[tuple[str, str], ...] = ()
    box_form: str = "size"


class Layout(NamedTuple):
    """A folder whose layout was recognized.

    name: 'coco', 'yolo', 'voc', ..., as `data.layout` has it; see find_layout.FINDERS.
    tool: who writes such folders, for the line that reports what was found: 'COCO JSON as exported
        by Roboflow'.
    splits: the names of the splits as they are on disk.
    read: from the name of a split, and the guard for errors of single entries, to its content.
        Raises DataError for a file that cannot be read at all.
    folders: that hold the images and annotations, and single files outside of these; () is the
        root alone. Changes in them are noticed, and images in them that no annotation names are
        reported.
    unlabelled: other splits, of which no image is annotated; they are reported and not used.
    suffixes: of annotation files, if they are other than those that file_facts.fingerprint counts.
    """

    name: str
    tool: str
    splits: tuple[str, ...]
    read: Callable[[str, Guard], RawSplit]
    folders: tuple[Path, ...] = ()
    unlabelled: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()


Finder = Callable[[Path], Layout | None]
