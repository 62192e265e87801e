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
        raise ValueError(
            f"{many} images need {more} bytes and {few} need {less}: memory must grow with the "
            "number of images"
        )
    each = (more - less) / (many - few)
    return MemoryLine(less - each * few, each)


def other_batch(images: int, memory: float, limit: float, multiple: int = 1) -> int:
    """Images of a second plan: twice as many where they fit, else half as many.

    From 8 images a TPU's layouts put the images beside the channels, and less is padded.

    Args:
        images: of the first plan, on a chip, a multiple of `multiple`.
        memory: that they need, bytes.
        limit: for the memory, bytes.
        multiple: of which the images of a batch are one.
    """
    half = images // 2 // multiple * multiple
    return half if half and 2 * memory > limit else 2 * images
