"""Finds images by the names that annotations state: also of another machine or another spelling.

Windows and macOS do not distinguish a.JPG from a.jpg, and macOS writes an accent as a separate
character. A name may lack its folder or suffix, or have the folders of the machine that wrote it.
"""

import contextlib
import filecmp
import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.file_names import fold, name_archives
from retinanet_jax.data.annotations.folder_files import relative_name, suffix_of
from retinanet_jax.data.annotations.folder_parts import ImageNames
from retinanet_jax.data.annotations.image_index import ImageIndex, Match
from retinanet_jax.data.annotations.split_names import split_in_name, split_kind
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

OTHER_FOLDER = "images found by name in another folder"
SIMILAR = "name that differs from its file in upper and lower case or Unicode form"


class ImageFinder:
    """Finds the images of one split that its annotations name.

    An image is taken from the first of these that has one:

      1. its place in one of `bases`;
      2. this place in another case or Unicode form, if the name has a folder;
      3. any folder, if the name has no folder or one that does not exist;
      4. its place, or else any folder, in another case or Unicode form.

    In 2 to 4, a file that another name states is not taken. In other folders, neither is an image
    of another split, nor one whose folders do not fit while those of other names do: cam3/1.jpg is
    missing if cam1/1.jpg exists and the annotations also name cam1/0.jpg.

    Args:
      root: folder of the dataset.
      split: name of the split; '' for annotations of any split.
      bases: folders that names may be relative to, the most likely first. The names of missing ones
        decide between images of the same name, which may be in another folder.
      stated: returns all names in the annotations; called if one is not at its place.
      elsewhere: whether to search other folders than the one at `bases`.

    Attributes:
      notes: (reason, image) pairs for images found in another place or by another spelling.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        bases: Sequence[Path],
        stated: Callable[[], Iterable[Any]] = tuple,
        *,
        elsewhere: bool = True,
    ):
        self._images = ImageNames(root)
        relative = {os.path.relpath(base, root): os.path.isdir(base) for base in bases}
        self._absent = [base for base, is_there in relative.items() if not is_there]
        present = [base for base in relative if relative[base]] if self._images.names else []
        self._bases = present or list(relative)
        self._folders = {os.path.dirname(name) for name in self._images.names}
        self._kind = _kind(split)
        self._names_in_annotations, self._elsewhere = stated, elsewhere
        self._indices: dict[tuple[bool, Callable[[str], str]], ImageIndex] = {}
        self._found: dict[str, str] = {}
        self.notes: list[tuple[str, str]] = []

    def find(self, stated: str, path: Path, where: str) -> str:
        """Returns the path of an image, which does not exist if no file fits.

        A name without a suffix stands for an image with any suffix.

        Raises:
          DataError: several images fit, or only one that may be another image; `path` and `where`
            name the entry in the message.
        """
        if stated not in self._found:
            self._found[stated] = self._find(stated, path, where)
        return self._found[stated]

    def find_first(self, names: Sequence[Any], path: Path, where: str) -> str:
        """Returns the path of the first of several names that exists, or else of the first name.

        Raises:
          DataError: a name is not text, or no name fits and one of them raises an error in `find`.
        """
        found: list[str] = []
        refused: DataError | None = None
        for name in names:
            if not isinstance(name, str) or not name.strip() or "\0" in name:
                what = f"the image name is {short(name)}"
                raise DataError("file name", path, where, what, "write it as text")
            try:
                found.append(self.find(name.strip(), path, where))
            except DataError as error:
                refused = refused or error
                continue
            if len(names) > 1 and self.exists(found[-1]):
                return found[-1]
        if refused is not None:
            raise refused
        return found[0]

    def exists(self, path: str) -> bool:
        """Returns whether the path that `find` returned exists."""
        return relative_name(path, self._images.folder) in self._images.names

    def _find(self, stated: str, path: Path, where: str) -> str:
        name = _as_path(stated)
        if (exact := self._at_place(name)) is not None:
            return self._images.path(exact)
        found, reasons = self._search(name)
        if len(found) > 1:
            inner = ([n for n in found if f"/{base}/" in f"/{n}"] for base in self._absent)
            found = next(filter(None, inner), found)
        if len(found) > 1 and not self._are_copies(found):
            what, fix = f"{short(stated)} may mean {_few(found)}", "write the name as it is on disk"
            raise DataError("ambiguous image", path, where, what, f"{fix}, with its folder")
        if found:
            self.notes += [(reason, self._images.path(found[0])) for reason in reasons]
            return self._images.path(found[0])
        if self._may_be_elsewhere(name) and (others := self._index(name, str).named(_last(name))):
            raise self._refused(stated, others, path, where)
        first = self._places(name)[0]
        return self._images.path(os.path.basename(name) if first.startswith("..") else first)

    def _refused(self, stated: str, others: list[str], path: Path, where: str) -> DataError:
        """The error of a name whose image is missing, while there are others of this name."""
        what, fix = f"{short(stated)} is missing; {_few(others)}", "state the folder in its name"
        if any(map(self._is_of_split, others)):
            what += " may be another image of this name"
        else:
            what += " is of another split"
            fix = "rename the folder if it is not"
        fix = f"add the image{name_archives(self._images.folder)}, or {fix}"
        return DataError("missing image", path, where, what, fix)

    def _search(self, name: str) -> tuple[list[str], tuple[str, ...]]:
        """The images that fit a name which is not at its place, and the reasons for notes."""
        similar = next(filter(None, map(self._index(name, fold).at, self._places(name))), [])
        similar = self._not_stated(similar)
        may_be_elsewhere = self._may_be_elsewhere(name)
        if may_be_elsewhere and not (similar and _has_folder(name)):
            if found := self._in_any_folder(name, str):
                return found, (OTHER_FOLDER,)
            if not similar and (found := self._in_any_folder(name, fold)):
                return found, (OTHER_FOLDER, SIMILAR)
        return similar, (SIMILAR,)

    def _may_be_elsewhere(self, name: str) -> bool:
        """Whether an image may be in another folder: its own is not stated, or does not exist."""
        if not self._elsewhere:
            return False
        folders = map(os.path.dirname, self._places(name))
        return not _has_folder(name) or self._folders.isdisjoint(folders)

    def _in_any_folder(self, name: str, spell: Callable[[str], str]) -> list[str]:
        match = self._index(name, spell).nearest(name)
        if match.names and _has_folder(name) and self._is_of_another_folder(name, match):
            return []
        return self._not_stated(match.names)

    def _is_of_another_folder(self, name: str, match: Match) -> bool:
        """Whether the folders of an image fit its name less than those of other names do."""
        if match.is_whole:
            return False
        if self._folder_at_place and not name.startswith("/"):
            return True
        return match.shared == 0 and (self._folder_at_place or self._folder_fits)

    @functools.cached_property
    def _stated(self) -> list[str]:
        stated = (name for name in self._names_in_annotations() if isinstance(name, str))
        return [_as_path(name) for name in dict.fromkeys(map(str.strip, stated)) if name]

    @functools.cached_property
    def _stated_images(self) -> set[str | None]:
        return set(map(self._at_place, self._stated))

    @functools.cached_property
    def _folder_at_place(self) -> bool:
        return any(_has_folder(name) and self._at_place(name) for name in self._stated)

    @functools.cached_property
    def _folder_fits(self) -> bool:
        return any(self._index(name, str).nearest(name).shared for name in self._stated)

    def _not_stated(self, found: list[str]) -> list[str]:
        return [name for name in found if name not in self._stated_images] if found else []

    def _places(self, name: str) -> list[str]:
        return [os.path.normpath(os.path.join(base, name.lstrip("/"))) for base in self._bases]

    def _at_place(self, name: str) -> str | None:
        """The image of exactly this name in one of the bases."""
        for place in self._places(name):
            if suffix_of(name) not in IMAGE_SUFFIXES:
                if len(same := self._images.by_stem.get(place, [])) == 1:
                    return same[0]
            elif place in self._images.names:
                return place
        return None

    def _index(self, name: str, spell: Callable[[str], str]) -> ImageIndex:
        with_suffix = suffix_of(name) in IMAGE_SUFFIXES
        if (with_suffix, spell) not in self._indices:
            index = ImageIndex(self._images, with_suffix, spell, self._is_of_split)
            self._indices[with_suffix, spell] = index
        return self._indices[with_suffix, spell]

    def _are_copies(self, names: Sequence[str]) -> bool:
        """Whether some images are the same, as where an archive was extracted twice."""
        first, *others = map(self._images.path, names)
        with contextlib.suppress(OSError):
            return all(filecmp.cmp(first, other, shallow=False) for other in others)
        return False

    def _is_of_split(self, name: str) -> bool:
        """Whether no folder on the way to an image is of another split."""
        if not self._kind:
            return True
        return {_kind(folder) for folder in name.split("/")[:-1]} <= {"", self._kind}


@functools.cache
def _kind(name: str) -> str:
    """'val' of the split or folder 'valid', 'val_images', 'val-zip', 'ValImages'; else ''."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return split_kind(name) or split_kind(split_in_name(words) or "")


def _as_path(stated: str) -> str:
    """A name with / between folders, without the address of a server or the letter of a drive."""
    return re.sub(r"^[a-z0-9]+://[^/]*/|^[A-Za-z]:/+", "/", stated.replace("\\", "/"))


def _has_folder(name: str) -> bool:
    return "/" in name.lstrip("/")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
