"""Layouts with a file for each split: which files are of one, and which images of which split."""

import json

import pytest
from layout_writers import (
    FURTHER_WRITERS,
    SMALL,
    WRITERS,
    Annotated,
    Box,
    createml_coordinates,
    scalabel,
    write_image,
)
from raw_reading import boxes, read

from retinanet_jax.data.annotations.split_content import LOST, Content, ImageEntry, SplitFileFormat
from retinanet_jax.data.annotations.split_files import find_layout_of
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


@pytest.mark.parametrize(
    "layout, file",
    [
        ("bdd100k", "labels/det_20/det_train.json"),
        ("widerface", "wider_face_split/wider_face_train_bbx_gt.txt"),
    ],
)
def test_one_file_of_a_release_finds_the_images_around_its_folder(tmp_path, layout, file):
    (WRITERS | FURTHER_WRITERS)[layout](tmp_path, SMALL)
    whole = read(FINDERS[layout], tmp_path)
    alone = read(FINDERS[layout], tmp_path / file)
    assert boxes(alone).keys() == boxes(whole).keys()
    assert all(image.path.is_file() for image in alone.images)


def test_the_file_of_an_image_may_have_no_object(tmp_path):
    """As in BDD100K's first release, which has a file for each image."""
    box = {"category": "car", "id": 0, "box2d": {"x1": 1, "y1": 2, "x2": 10, "y2": 12}}
    for name, objects in (("a", [box]), ("b", [])):
        frame = {"timestamp": 10000, "objects": objects}
        content = {"name": name, "frames": [frame], "attributes": {"weather": "clear"}}
        folder = tmp_path / "labels/100k/train"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(content))
        write_image(tmp_path / "images/100k/train", Annotated(f"{name}.jpg", 64, 48))
    found = boxes(read(FINDERS["bdd100k"], tmp_path))
    assert {name.rpartition("/")[2]: len(objects) for name, objects in found.items()} == {
        "a.jpg": 1,
        "b.jpg": 0,
    }


@pytest.mark.parametrize("folder", ["", "labels"])
@pytest.mark.parametrize("layout, text", [
    ("createml", '[{{"image": "{0}.png", "annotations": [{1}]}}]'),
    ("bdd100k", '[{{"name": "{0}.png", "labels": [{2}]}}]'),
])  # fmt: skip
def test_words_in_the_names_of_images_are_no_splits(tmp_path, layout, text, folder):
    box = Box("cat", 4, 6, 20, 12)
    apple = json.dumps({"label": "cat", "coordinates": createml_coordinates(box)})
    berkeley = json.dumps(scalabel(box))
    for name in ("test_track_1", "train_yard", "stop"):
        write_image(tmp_path / "images" if folder else tmp_path, Annotated(f"{name}.png", 64, 48))
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / f"{name}.json"
        path.write_text(text.format(name, apple, berkeley), encoding="utf-8")
    found = find_layout(tmp_path).layout
    assert (found.name, found.splits) == (layout, ("train",))
    names = ("test_track_1.png", "train_yard.png", "stop.png")
    assert boxes(read(FINDERS[layout], tmp_path)) == {name: [tuple(box)] for name in names}


@pytest.mark.parametrize("previews", [["test"], ["train", "val", "test"]])
def test_an_image_with_the_name_of_a_split_leaves_its_file_that_of_the_split(tmp_path, previews):
    WRITERS["bdd100k"](tmp_path, SMALL | {"test": SMALL["train"]})
    for name in previews:
        write_image(tmp_path, Annotated(f"det_{name}.png", 64, 48))
    assert set(find_layout(tmp_path).layout.splits) == {"train", "val", "test"}
