"""Supervisely's projects: datasets as splits, shapes, errors that name the object."""

import base64
import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from layout_writers import SMALL, Annotated, Box, write_image, write_supervisely
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import supervisely
from retinanet_jax.data.formats.find_layout import find_layout


def mask(height: int, width: int) -> bytes:
    """A mask as Supervisely has it: a PNG with an alpha channel, cropped to the object."""
    return cv2.imencode(".png", np.full((height, width, 4), 255, np.uint8))[1].tobytes()


def shape(kind: str, **fields) -> dict:
    return {"classTitle": "cat", "geometryType": kind, "tags": [], **fields}


def polygon(*points, kind="polygon") -> dict:
    return shape(kind, points={"exterior": [list(p) for p in points], "interior": []})


@pytest.fixture
def folder(tmp_path):
    """A function that writes the objects of a.png, in one dataset without meta.json."""

    def write(*objects):
        write_image(tmp_path / "ds" / "img", Annotated("a.png", 64, 48))
        size = {"height": 48, "width": 64}
        content = {"description": "", "tags": [], "size": size, "objects": list(objects)}
        path = tmp_path / "ds" / "ann" / "a.png.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def test_a_project_is_read(tmp_path):
    write_supervisely(tmp_path, SMALL)
    layout = supervisely.find(tmp_path)
    assert layout.tool == "Supervisely project" and set(layout.splits) == {"train", "val"}
    assert find_layout(tmp_path).layout.name == "supervisely"
    for split in SMALL:
        content = read(supervisely.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert content.class_names == ("cat", "dog") and not content.notes
        assert [image.size for image in content.images] == [
            (i.height, i.width) for i in SMALL[split]
        ]
        assert all(image.path.is_file() for image in content.images)
    # One dataset alone has the classes of its project.
    assert read(supervisely.find, tmp_path / "val", "train").class_names == ("cat", "dog")


def test_one_dataset_is_the_training_split_and_several_are_splits(tmp_path, folder):
    root = folder(polygon((1, 2), (30, 40), kind="rectangle"))
    assert supervisely.find(root).splits == supervisely.find(root / "ds").splits == ("train",)
    (tmp_path / "ds").rename(tmp_path / "ds0")
    folder()
    assert supervisely.find(root).splits == ("ds", "ds0")


def test_shapes_have_their_bounding_boxes(folder):
    packed = base64.b64encode(zlib.compress(mask(7, 9))).decode()
    plain = base64.b64encode(mask(5, 6)).decode()
    root = folder(
        polygon((20, 30), (4, 6), kind="rectangle"),  # from any corner
        polygon((1, 2), (11, 4), (3, 22)),
        shape("bitmap", bitmap={"data": packed, "origin": [12, 13]}),
        shape("alpha_mask", bitmap={"data": plain, "origin": [0, 40]}),
        polygon((5, 5), kind="point"),
        polygon((5, 5), (9, 9), kind="line"),
        shape("cuboid"),
    )
    content = read(supervisely.find, root)
    assert [found[1:] for found in boxes(content)["a.png"]] == [
        (4, 6, 16, 24),
        (1, 2, 10, 20),
        (12, 13, 9, 7),
        (0, 40, 6, 5),
    ]
    assert reasons(content) == {OUTLINE: 1, NO_BOX: 1, supervisely.OTHERS: 1}


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (polygon((1, 2), kind="rectangle"), r"objects\[0\]: points.exterior is .*in pixels"),
        (polygon((1, None), (2, 3)), "points.exterior is"),
        (shape("bitmap", bitmap={"data": "x", "origin": [1, 2]}), "bitmap is .*as a PNG"),
        (shape("bitmap"), "bitmap is None"),
        ({"geometryType": "polygon"}, "points.exterior is None"),
        ({"classTitle": "cat"}, "no field 'geometryType'"),
        (polygon((1, 2), (3, 4)) | {"classTitle": " "}, "the class is"),
    ],
)
def test_errors_name_the_object(folder, broken, expected):
    with pytest.raises(DataError, match=r"a\.png\.json.*" + expected):
        read(supervisely.find, folder(broken))


def test_a_class_that_meta_lacks_is_an_error(folder):
    root = folder(polygon((1, 2), (3, 4)))
    (root / "meta.json").write_text('{"classes": [{"title": "dog"}]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"the class is 'cat'; .*add it to the list of classes"):
        read(supervisely.find, root)
    (root / "meta.json").write_text('{"classes": 3}', encoding="utf-8")
    with pytest.raises(DataError, match=r"meta\.json: classes is 3"):
        supervisely.find(root)


def nest(root: Path, old: str, new: str) -> None:
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(root / new)


def test_datasets_in_datasets_are_read_with_them(tmp_path):
    """The SDK stores the datasets in a dataset in its folder datasets/."""
    both = SMALL | {"night": [Annotated("e.png", 64, 48, (Box("dog", 3, 5, 20, 30),))]}
    write_supervisely(tmp_path, both)
    nest(tmp_path, "night", "train/datasets/night")
    content = read(lambda root: find_layout(root).layout, tmp_path)
    assert boxes(content) == expected(both) | expected(both, "night") and not content.notes
    assert all(image.path.is_file() for image in content.images)
    assert boxes(read(supervisely.find, tmp_path, "val")) == expected(SMALL, "val")


def test_datasets_without_images_of_their_own_keep_their_names(tmp_path):
    write_supervisely(tmp_path, SMALL)
    nest(tmp_path, "train", "fruits/datasets/apples/datasets/red")
    nest(tmp_path, "val", "leaves/datasets/green")
    assert find_layout(tmp_path).layout.splits == ("fruits", "leaves")
    assert boxes(read(supervisely.find, tmp_path, "fruits")) == expected(SMALL)


@pytest.mark.parametrize("place", ["", "city/", "city/datasets/north/"])
def test_a_dataset_in_a_dataset_may_be_named_as_a_split(tmp_path, place):
    write_supervisely(tmp_path, SMALL)
    for split in SMALL:
        nest(tmp_path, split, f"{place}datasets/{split}")
    assert set(find_layout(tmp_path).layout.splits) == {"train", "val"}
    for split in SMALL:
        assert boxes(read(supervisely.find, tmp_path, split)) == expected(SMALL, split)


def test_a_dataset_may_be_named_datasets(tmp_path):
    write_supervisely(tmp_path, SMALL)
    nest(tmp_path, "val", "datasets")
    nest(tmp_path, "train", "more")
    assert supervisely.find(tmp_path).splits == ("datasets", "more")
    assert boxes(read(supervisely.find, tmp_path, "datasets")) == expected(SMALL, "val")
