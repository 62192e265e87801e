"""The largest batch that fits, by a straight line through the memory of two plans."""

from typing import NamedTuple

# Of the memory that programs may use; the rest is for batches that wait and for the evaluation.
MEMORY_SHARE = 0.9


class MemoryLine(NamedTuple):
    """Memory of a chip as a function of its images: fixed + each * images, bytes."""

    fixed: float
    each: float

    def at(self, images: int) -> float:
        """Bytes for that many images."""
        return self.fixed + self.each * images

    def largest(self, limit: float, multiple: int = 1) -> int:
        """The most images, a multiple of `multiple`, that need at most `limit` bytes; 0 if none."""
        images = max(0.0, (limit - self.fixed) / self.each)
        return int(images // multiple) * multiple


def memory_line(first: tuple[int, float], second: tuple[int, float]) -> MemoryLine:
    """The line through two plans.

    Args:
        first: images on a chip, and bytes; `second` the same for another number of images.

    Raises:
        ValueError: the plan with more images needs no more memory.
    """
    (few, less), (many, more) = sorted((first, second))
    if few == many or more <= less:
        raise ValueError(f"{many} images need {more} bytes, {few} need {less}: no line")
    each = (more - less) / (many - few)
    return MemoryLine(less - each * few, each)


def other_batch(images: int, multiple: int) -> int:
    """Images of a second plan: half as many, or twice as many where half is no multiple."""
    half = images // 2 // multiple * multiple
    return half or 2 * images
