"""Finds images by names from another machine, or by names without folder or suffix."""

import collections
import contextlib
import filecmp
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.folder_files import relative_name, suffix_of
from retinanet_jax.data.annotations.folder_parts import ImageNames
from retinanet_jax.data.annotations.split_names import split_in_name, split_kind
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES


class ImageFinder:
    """Finds the images of one split that a table names.

    Args:
      root: folder of the dataset.
      split: name of the split; an image in a folder of another split does not fit a name without
        folder.
      bases: folders that names may be relative to, the most likely first. The names of missing ones
        decide between images of the same name, which may be in another folder.
    """

    def __init__(self, root: Path, split: str, bases: Sequence[Path]):
        self._images = ImageNames(root)
        relative = {os.path.relpath(base, root): os.path.isdir(base) for base in bases}
        self._absent = [base for base, is_there in relative.items() if not is_there]
        present = [base for base in relative if relative[base]] if self._images.names else []
        self._bases = present or list(relative)
        self._folders = {os.path.dirname(name) for name in self._images.names}
        self._kind = split_kind(split_in_name(split) or split)
        self._by_name: dict[str, list[str]] = collections.defaultdict(list)
        self._by_stem: dict[str, list[str]] = collections.defaultdict(list)
        for name in sorted(self._images.names):
            self._by_name[os.path.basename(name)].append(name)
        for stem in sorted(self._images.by_stem):
            self._by_stem[os.path.basename(stem)] += self._images.by_stem[stem]
        self._ends: dict[tuple[bool, str], dict[str, list[str]]] = {}
        self._found: dict[str, str] = {}

    def find(self, stated: str, path: Path, where: str) -> str:
        """Returns the path of an image, which does not exist if no file fits.

        The name is relative to one of `bases`. If it has no folder, or one that does not exist, as
        on another machine, an image of this name in any folder is used. A name without a suffix
        stands for an image with any suffix.

        Raises:
          DataError: several images fit; `path` and `where` name the entry in the message.
        """
        if stated not in self._found:
            self._found[stated] = self._find(stated, path, where)
        return self._found[stated]

    def find_first(self, names: Sequence[Any], path: Path, where: str) -> str:
        """Returns the path of the first of several names that exists, or else of the first name.

        Raises:
          DataError: a name is not text, or a name fits several images and no other name fits one.
        """
        found: list[str] = []
        ambiguous: DataError | None = None
        for name in names:
            if not isinstance(name, str) or not name.strip() or "\0" in name:
                what = f"the image name is {short(name)}"
                raise DataError("file name", path, where, what, "write it as text")
            try:
                found.append(self.find(name.strip(), path, where))
            except DataError as error:
                ambiguous = ambiguous or error
                continue
            if len(names) > 1 and self.exists(found[-1]):
                return found[-1]
        if ambiguous is not None:
            raise ambiguous
        return found[0]

    def exists(self, path: str) -> bool:
        """Returns whether the path that `find` returned exists."""
        return relative_name(path, self._images.folder) in self._images.names

    def _find(self, stated: str, path: Path, where: str) -> str:
        name = re.sub(r"^[a-z0-9]+://[^/]*/|^[A-Za-z]:/+", "/", stated.replace("\\", "/"))
        relative = [os.path.normpath(os.path.join(base, name.lstrip("/"))) for base in self._bases]
        has_suffix = suffix_of(name) in IMAGE_SUFFIXES
        for candidate in relative:
            if has_suffix and candidate in self._images.names:
                return self._images.path(candidate)
            if not has_suffix and len(same := self._images.by_stem.get(candidate, [])) == 1:
                return self._images.path(same[0])
        leads_out = relative[0].startswith("..")
        missing = self._images.path(os.path.basename(name) if leads_out else relative[0])
        if "/" in name.lstrip("/") and any(os.path.dirname(c) in self._folders for c in relative):
            return missing
        best = self._nearest(name, has_suffix)
        if len(best) > 1:
            inner = ([n for n in best if f"/{base}/" in f"/{n}"] for base in self._absent)
            best = next(filter(None, inner), best)
        if len(best) > 1 and not self._are_copies(best):
            few = ", ".join(best[:3]) + (", ..." if len(best) > 3 else "")
            what = f"{short(stated)} may mean {few}"
            raise DataError("ambiguous image", path, where, what, "write the name with its folder")
        return self._images.path(best[0]) if best else missing

    def _nearest(self, name: str, has_suffix: bool) -> list[str]:
        """The images of a name that have most folders in common with its end."""
        *folders, last = name.split("/")
        same = (self._by_name if has_suffix else self._by_stem).get(last, [])
        if len(same) < 2:
            return list(filter(self._is_of_split, same))
        key = has_suffix, last
        if key not in self._ends:
            self._ends[key] = _by_ends(filter(self._is_of_split, same))
        ends = ("/".join(folders[start:]) for start in range(len(folders) + 1))
        return next((self._ends[key][end] for end in ends if end in self._ends[key]), [])

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
        return {split_kind(folder) for folder in name.split("/")[:-1]} <= {"", self._kind}


def _by_ends(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by each end of their folders: a/b/c.jpg by 'a/b', 'b' and ''."""
    found = collections.defaultdict(list)
    for name in names:
        folders = name.split("/")[:-1]
        for start in range(len(folders) + 1):
            found["/".join(folders[start:])].append(name)
    return dict(found)
