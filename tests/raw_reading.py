"""What tests of the readers of annotations share: reading a folder, and comparing with what it is
known to have."""

from pathlib import Path

from layout_writers import Splits

from retinanet_jax.data.annotations.raw import Finder, RawSplit
from retinanet_jax.data.data_errors import Guard, Report


def read(find: Finder, root: Path, split: str = "train", on_error: str = "strict") -> RawSplit:
    """One split, or the errors that 'strict' raises at the end."""
    layout = find(root)
    assert layout is not None, f"{root} was not recognised"
    guard = Guard(on_error, Report())
    content = layout.read(split, guard)
    guard.finish(root)
    return content


def boxes(content: RawSplit) -> dict[str, list[tuple]]:
    """By the last part of the file's name: (class, x, y, width, height), in pixels if known."""
    found = {}
    for image in content.images:
        height, width = image.size if image.size and image.normalized else (1, 1)
        scale = (width, height, width, height)
        found[Path(image.file_name).name] = [
            (o.class_name, *(v * s for v, s in zip(o.box, scale, strict=True)))
            for o in image.objects
        ]
    return found


def expected(splits: Splits, split: str = "train", *, shares: bool = False) -> dict:
    """`boxes` of what tests/layout_writers.py wrote; as shares of the image's size if so asked."""
    found = {}
    for image in splits[split]:
        scale = (image.width, image.height) * 2 if shares else (1, 1, 1, 1)
        found[Path(image.file_name).name] = [
            (b.name, *(v / s for v, s in zip(b[1:], scale, strict=True))) for b in image.boxes
        ]
    return found


def reasons(content: RawSplit) -> dict[str, int]:
    """How often each reason is among the notes."""
    counts: dict[str, int] = {}
    for reason, _ in content.notes:
        counts[reason] = counts.get(reason, 0) + 1
    return counts
