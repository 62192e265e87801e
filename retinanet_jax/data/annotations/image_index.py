"""Looks up the images of a folder by a place or by a name, spelled as on disk or in any way."""

import collections
import os
from collections.abc import Callable
from typing import NamedTuple

from retinanet_jax.data.annotations.file_names import fold
from retinanet_jax.data.annotations.folder_parts import ImageNames


class Match(NamedTuple):
    """The images that fit a name best.

    names: images, relative to their root.
    shared: number of folders that end both the stated name's folders and those of the images.
    is_whole: whether these are all folders of the images.
    """

    names: list[str]
    shared: int = 0
    is_whole: bool = False


class ImageIndex:
    """The images below a folder by their places and by their names without folders.

    Args:
      images: names of the images.
      with_suffix: whether to look up file names, or names without their suffixes.
      spell: `str` for exact names, or `fold` for any case and Unicode form.
      is_usable: whether an image may be found by its name without its folder.
    """

    def __init__(
        self,
        images: ImageNames,
        with_suffix: bool,
        spell: Callable[[str], str],
        is_usable: Callable[[str], bool],
    ):
        self._spell, self._is_usable = spell, is_usable
        self._places: dict[str, list[str]] = collections.defaultdict(list)
        self._named: dict[str, list[str]] = collections.defaultdict(list)
        entries = {name: [name] for name in images.names} if with_suffix else images.by_stem
        for place in sorted(entries):
            self._places[spell(place)] += entries[place]
            self._named[spell(os.path.basename(place))] += entries[place]
        self._ends: dict[str, dict[str, list[str]]] = {}

    def at(self, place: str) -> list[str]:
        """Returns the images at a place, such as 'images/a.jpg'."""
        return self._places.get(self._spell(place), [])

    def named(self, name: str) -> list[str]:
        """Returns the images of a name in any folder, usable or not."""
        return self._named.get(self._spell(name), [])

    def nearest(self, name: str) -> Match:
        """Returns the usable images of a name that have most folders in common with its end."""
        *folders, last = name.lstrip("/").split("/")
        key = self._spell(last)
        if key not in self._ends:
            self._ends[key] = self._by_ends(last)
        folders = [fold(folder) for folder in folders]
        for start in range(len(folders) + 1):
            if found := self._ends[key].get("/".join(folders[start:])):
                shared = len(folders) - start
                return Match(found, shared, {n.count("/") for n in found} == {shared})
        return Match([])

    def _by_ends(self, last: str) -> dict[str, list[str]]:
        """The images of a name by each end of their folders: a/b/c.jpg by 'a/b', 'b' and ''."""
        found = collections.defaultdict(list)
        for name in filter(self._is_usable, self.named(last)):
            folders = [fold(folder) for folder in name.split("/")[:-1]]
            for start in range(len(folders) + 1):
                found["/".join(folders[start:])].append(name)
        return dict(found)
