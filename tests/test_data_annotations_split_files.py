"""Layouts with a file for each split: which files are of one, and which images of which split."""

import json

import pytest
from layout_writers import SMALL, WRITERS, Annotated, write_image
from raw_reading import boxes, read

from retinanet_jax.data.annotations.split_files import (
    LOST,
    Content,
    ImageEntry,
    SplitFileFormat,
    find_layout_of,
)
from retinanet_jax.data.annotations.split_names import without_split
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

FILES = {
    "bdd100k": "labels/det_20/det_{}.json",
    "datumaro": "annotations/{}.json",
    "sagemaker": "{}.manifest",
}


@pytest.mark.parametrize(
    "name, pattern",
    [
        ("train.json", "*.json"),
        ("det_val2017.json", "det_*.json"),
        ("classes.json", None),
        ("train_val.json", None),
    ],
)
def test_the_split_in_a_name(name, pattern):
    assert without_split(name) == pattern


@pytest.mark.parametrize("layout, file", FILES.items())
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_broken_file_of_a_split_is_an_error(tmp_path, layout, file, content):
    WRITERS[layout](tmp_path, SMALL)
    path = tmp_path / file.format("val")
    assert path.is_file()
    path.write_bytes(content)
    found = find_layout(tmp_path)
    assert (found.layout.name, len(found.layout.splits)) == (layout, 2)
    if content or layout != "sagemaker":  # a list without a line is a split without an image
        with pytest.raises(DataError, match=path.name):
            read(FINDERS[layout], tmp_path, "val")


def test_a_split_may_begin_with_many_images_without_objects(tmp_path):
    WRITERS["bdd100k"](tmp_path, SMALL)
    wanted = boxes(read(FINDERS["bdd100k"], tmp_path))
    path = tmp_path / FILES["bdd100k"].format("train")
    frames = json.loads(path.read_text())
    empty = [{"name": f"{n}.png", "attributes": {}, "labels": []} for n in range(2000)]
    path.write_text(json.dumps([*empty, *frames]))
    found = boxes(read(FINDERS["bdd100k"], tmp_path))
    assert {name: found[name] for name in wanted} == wanted and len(found) == 2000 + len(wanted)


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
