"""Layouts with a file for each split: images that a file has of a split that it did not state."""

from layout_writers import Annotated, write_image

from retinanet_jax.data.annotations.split_files import (
    LOST,
    Content,
    ImageEntry,
    SplitFileFormat,
    find_layout_of,
)
from retinanet_jax.data.data_errors import Guard, Report


def _parse(path, guard):
    """A name and a split in each line."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return Content([ImageEntry([name], f"image {name}", [], split=split) for name, split in lines])


def test_images_of_a_split_that_was_not_found_are_noted(tmp_path):
    for name in "abc":
        write_image(tmp_path, Annotated(f"{name}.png", 64, 48))
    (tmp_path / "1.test").write_text("a.png train\nb.png val\n", encoding="utf-8")
    (tmp_path / "2.test").write_text("c.png val\n", encoding="utf-8")
    kind = SplitFileFormat(
        name="test",
        tool="a test",
        suffixes=(".test",),
        is_one=lambda path: True,
        parse=_parse,
        box=lambda *_: None,
        inner_splits=lambda path: ["train" if path.name == "1.test" else "val"],
    )
    layout = find_layout_of(kind, tmp_path)
    assert layout.splits == ("train", "val")
    train, val = (layout.read(split, Guard("strict", Report())) for split in layout.splits)
    assert [image.file_name for image in train.images] == ["a.png"]
    assert train.notes == ((LOST, f"{tmp_path / '1.test'}: image b.png"),)
    assert [image.file_name for image in val.images] == ["c.png"] and not val.notes
