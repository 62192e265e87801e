"""The protocol of a source of images; slices and concatenations of sources."""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from retinanet_jax.data.pipeline.batch import Example


class Annotated(NamedTuple):
    """The annotations of one image, without its pixels.

    Boxes are xyxy in pixels of the image as its source reads it, and `size` is its (height, width).
    `areas` are the annotated areas of the objects, in square pixels.
    """

    boxes: Float[np.ndarray, "m 4"]
    labels: Int[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]
    areas: Float[np.ndarray, " m"]
    size: tuple[int, int]


@runtime_checkable
class Source(Protocol):
    """Random access to the images of a split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) in pixels, without decoding."""

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of an image, without decoding."""


@runtime_checkable
class IdentifiedSource(Source, Protocol):
    """A source that knows the ids of its images without decoding them."""

    def image_id(self, index: int) -> int:
        """Returns the image id of its detections."""


class Slice:
    """Some images of a source, by their numbers in it."""

    def __init__(self, source: IdentifiedSource, numbers: range):
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Example:
        return self._source[self._numbers[index]]

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        return self._source.image_size(self._numbers[index])

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of an image, without decoding."""
        return self._source.annotated(self._numbers[index])

    def image_id(self, index: int) -> int:
        """Returns the id of the image in the whole source."""
        return self._source.image_id(self._numbers[index])


class Concatenation:
    """Several sources one after the other."""

    def __init__(self, parts: Sequence[IdentifiedSource]):
        self._parts = tuple(parts)
        self._ends = list(itertools.accumulate(len(part) for part in self._parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        part, index = self.find(index)
        return self._parts[part][index]

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        part, index = self.find(index)
        return self._parts[part].image_size(index)

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of an image, without decoding."""
        part, index = self.find(index)
        return self._parts[part].annotated(index)

    def image_id(self, index: int) -> int:
        """Returns the id of the image in its own source."""
        part, index = self.find(index)
        return self._parts[part].image_id(index)

    def find(self, index: int) -> tuple[int, int]:
        """Returns which part image `index` is in, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"no image {index} of {len(self)}")
        part = bisect.bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)
