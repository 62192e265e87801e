"""Estimates the largest batch that fits, from a straight line through the memory of two plans."""

from typing import NamedTuple

# Of the memory that programs may use; the rest is for batches that wait and for the evaluation.
MEMORY_SHARE = 0.9


class MemoryLine(NamedTuple):
    """Memory that a chip needs as a function of its images: fixed + each * images, in bytes."""

    fixed: float
    each: float

    def at(self, images: int) -> float:
        """Returns the bytes for that many images."""
        return self.fixed + self.each * images

    def largest(self, limit: float, multiple: int = 1) -> int:
        """Returns the largest multiple of `multiple` images that fits into `limit` bytes; or 0."""
        images = max(0.0, (limit - self.fixed) / self.each)
        return int(images // multiple) * multiple


def memory_line(first: tuple[int, float], second: tuple[int, float]) -> MemoryLine:
    """Returns the line through two plans.

    Args:
        first: images per chip, and bytes.
        second: the same for a different number of images.

    Raises:
        ValueError: the plan with more images does not need more memory.
    """
    (few, less), (many, more) = sorted((first, second))
    if few == many or more <= less:
        raise ValueError(
            f"{many} images need {more} bytes and {few} need {less}: memory must grow with the "
            "number of images"
        )
    each = (more - less) / (many - few)
    return MemoryLine(less - each * few, each)


def other_batch(images: int, memory: float, limit: float, multiple: int = 1) -> int:
    """Returns the images per chip of a second plan: twice as many if they fit, else half as many.

    From 8 images on, a TPU's layouts put the images beside the channels and need less padding.

    Args:
        images: images per chip of the first plan, a multiple of `multiple`.
        memory: memory that they need, in bytes.
        limit: limit of the memory, in bytes.
        multiple: number that must divide the images of a batch.
    """
    half = images // 2 // multiple * multiple
    return half if half and 2 * memory > limit else 2 * images
