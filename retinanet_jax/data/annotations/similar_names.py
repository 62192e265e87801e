"""Finds images whose names differ from the annotations in case or Unicode form.

Windows and macOS do not distinguish a.JPG from a.jpg, and macOS writes an accent as a separate
character.
"""

import collections
import os
from collections.abc import Collection
from pathlib import Path

from retinanet_jax.data.annotations.file_names import fold
from retinanet_jax.data.annotations.folder_files import list_folder
from retinanet_jax.data.annotations.raw import RawSplit
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

SIMILAR = "name that differs from its file in upper and lower case or Unicode form"


def with_similar_names(raw: RawSplit, present: Collection[str]) -> RawSplit:
    """Returns the images, with missing files replaced by files of similar names.

    A file replaces a missing one only if it is not annotated itself.

    Args:
      present: paths of existing files.
    """
    named = {str(image.path) for image in raw.images}
    folders: dict[Path, dict[str, list[str]]] = {}
    images, notes = [], list(raw.notes)
    for image in raw.images:
        path = image.path
        if isinstance(path, Path) and str(path) not in present and not os.path.isfile(path):
            if path.parent not in folders:
                folders[path.parent] = _by_folded_name(path.parent)
            found = folders[path.parent].get(fold(path.name), [])
            if len(found) == 1 and found[0] not in named:
                image = image._replace(path=Path(found[0]))
                notes.append((SIMILAR, found[0]))
        images.append(image)
    return raw._replace(images=tuple(images), notes=tuple(notes))


def _by_folded_name(folder: Path) -> dict[str, list[str]]:
    found = collections.defaultdict(list)
    for name in list_folder(folder).with_suffix(*IMAGE_SUFFIXES):
        found[fold(name)].append(os.path.join(folder, name))
    return found
