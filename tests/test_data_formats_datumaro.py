"""Datumaro's JSON: types of annotations, groups, labels, places of images, errors by item."""

import json

import cv2
import numpy as np
import pytest
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    datumaro_box,
    datumaro_export,
    datumaro_item,
    datumaro_json,
    write_datumaro,
    write_image,
)
from pycocotools import mask as coco_masks
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.annotation_fields import NO_CLASSES
from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import datumaro
from retinanet_jax.data.formats.datumaro_shapes import GROUPED, WHOLE_IMAGE
from retinanet_jax.data.formats.rle_masks import box_of_rle

IMAGE = Annotated("a.png", 64, 48)
BOX = Box("cat", 4, 6, 20, 12)


@pytest.fixture
def folder(tmp_path):
    """A function that writes images/train/a.png and its annotations; `change` edits the JSON."""

    def write(*annotations, names=("cat", "dog"), change=lambda content: None):
        write_image(tmp_path / "images/train", IMAGE)
        content = datumaro_json([datumaro_item(IMAGE, list(annotations))], list(names))
        change(content)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations/train.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def shape(kind, label_id=0, **fields):
    found = datumaro_box(BOX, label_id, type=kind, **fields)
    return {key: value for key, value in found.items() if key != "bbox"}


def test_subsets_are_splits(tmp_path):
    write_datumaro(tmp_path, SMALL)
    layout = datumaro.find(tmp_path)
    assert layout.tool == "Datumaro JSON" and set(layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(datumaro.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert content.class_names == ("cat", "dog")
        assert all(image.path.is_file() for image in content.images)
        assert [im.size for im in content.images] == [(i.height, i.width) for i in SMALL[split]]


def test_the_one_file_of_a_subset_is_read_with_its_images(tmp_path):
    write_datumaro(tmp_path, SMALL)
    content = read(datumaro.find, tmp_path / "annotations/val.json", "val")
    assert boxes(content) == expected(SMALL, "val")
    assert all(image.path.is_file() for image in content.images)


def test_boxes_of_all_types(folder):
    mask = np.zeros((48, 64), np.uint8)
    mask[5:20, 7:31] = 1
    rle = coco_masks.encode(np.asfortranarray(mask))
    rle = {"counts": rle["counts"].decode(), "size": [48, 64]}
    corners = [[1, 1], [5, 1], [5, 9], [1, 9], [3, 2], [7, 2], [7, 10], [3, 10]]
    root = folder(
        datumaro_box(Box("", 10, 20, 20, 4), 1, attributes={"rotation": 90.0}),
        shape("polygon", points=[1.5, 9, 5, 2, 7, 8]),
        shape("mask", rle=rle),
        shape("ellipse", points=[3, 4, 23, 34]),
        shape("ellipse", points=[5, 18, 15, 22], attributes={"rotation": 90}),
        shape("rotated_bbox", points=[20, 22, 20, 4, 90]),
        shape("cuboid_2d", points=corners),
        shape("points", points=[1, 2], visibility=[2]),
        shape("polyline", points=[1, 2, 3, 4]),
        shape("skeleton", points=[1, 2, 2], label_id=1),
        shape("label"),
        {"id": 0, "type": "caption", "attributes": {}, "group": 0, "caption": "a cat"},
        shape("cuboid_3d", position=[0, 0, 0], rotation=[0, 0, 0], scale=[1, 1, 1]),
    )
    content = read(datumaro.find, root)
    objects = content.images[0].objects
    wanted = [
        *((18, 12, 4, 20), (1.5, 2, 5.5, 7), (7, 5, 24, 15), (3, 4, 20, 30)),
        *((8, 15, 4, 10), (18, 12, 4, 20), (1, 1, 6, 9)),
    ]
    assert [o.box for o in objects] == list(map(pytest.approx, wanted))
    assert [o.class_name for o in objects] == ["dog", *["cat"] * 6]
    assert reasons(content) == {OUTLINE: 1, NO_BOX: 1, WHOLE_IMAGE: 1}


def test_annotations_of_one_label_in_a_group_are_one_object(folder):
    left, right = [1, 2, 10, 4, 5, 12], [31, 2, 40, 4, 35, 42]
    root = folder(
        shape("polygon", points=left, group=7),
        shape("polygon", points=right, group=7),
        shape("polygon", points=right, group=7, label_id=1),
        shape("polygon", points=left, group=8),
        datumaro_box(BOX, 0, group=8),
        datumaro_box(BOX, 0, group=9),
        datumaro_box(Box("", 0, 0, 5, 5), 0, group=9),
        shape("polygon", points=left),
        shape("polygon", points=left),
    )
    content = read(datumaro.find, root)
    whole, of_left, of_right = (1, 2, 39, 40), (1, 2, 9, 10), (31, 2, 9, 40)
    found = [(o.where, o.box) for o in content.images[0].objects]
    assert found == [
        ("annotation 0", whole),
        ("annotation 2", of_right),
        ("annotation 3", (4, 6, 20, 12)),
        *(("annotation 5", (4, 6, 20, 12)), ("annotation 6", (0, 0, 5, 5))),
        *(("annotation 7", of_left), ("annotation 8", of_left)),
    ]
    assert reasons(content)[GROUPED] == 1


def test_crowds_and_difficult_objects_are_ignored_regions(folder):
    marks = ({"is_crowd": True}, {"is_crowd": False}, {"difficult": True}, {"occluded": True})
    root = folder(*(datumaro_box(BOX, 0, attributes=mark) for mark in marks))
    objects = read(datumaro.find, root).images[0].objects
    assert [o.crowd for o in objects] == [True, False, True, False]


def test_points_of_a_skeleton_are_not_classes(folder):
    def add_skeleton(content):
        labels = content["categories"]["label"]["labels"]
        labels[2:] = [
            {"name": name, "parent": parent, "attributes": []}
            for name, parent in (("eye", "cat"), ("eye", "dog"), ("puppy", "dog"))
        ]
        items = [{"label_id": n, "labels": ["eye"], "joints": []} for n in (0, 1)]
        content["categories"]["points"] = {"items": items}

    root = folder(datumaro_box(BOX, 4), change=add_skeleton)
    content = read(datumaro.find, root)
    assert content.class_names == ("cat", "dog", "puppy")
    assert content.images[0].objects[0].class_name == "puppy"


def test_annotations_without_labels_are_one_class(folder):
    content = read(datumaro.find, folder(datumaro_box(BOX, None), names=()))
    assert boxes(content) == {"a.png": [("object", 4, 6, 20, 12)]}
    assert reasons(content) == {NO_CLASSES: 1}


@pytest.mark.parametrize(
    "image, place",
    [
        ({"path": "a.png"}, "images/train"),
        ({"path": ""}, "images/train"),
        (None, "images/train"),
        ({"path": "a.png"}, "images"),
        ({"path": "/home/me/photos/a.png"}, "images/train"),
        ({"path": "C:\\photos\\a.png"}, "photos"),
        ({"path": "cam 1/a.png"}, "images/cam 1"),
    ],
)
def test_images_are_found_where_versions_of_the_format_have_them(folder, image, place):
    def state(content):
        content["items"][0] |= {"image": image}

    root = folder(datumaro_box(BOX, 0), change=state)
    (root / "images/train/a.png").unlink()
    path = write_image(root / place, IMAGE)
    assert read(datumaro.find, root).images[0].path == path


def test_a_missing_image_is_named_where_it_should_be(folder):
    root = folder(datumaro_box(BOX, 0))
    (root / "images/train/a.png").unlink()
    assert read(datumaro.find, root).images[0].file_name == "images/train/a.png"


def test_files_of_older_versions_are_recognized(folder):
    def older(content):
        del content["dm_format_version"], content["media_type"], content["infos"]
        items = content.pop("items")
        content |= {"info": {}, "categories": content.pop("categories"), "items": items}

    assert boxes(read(datumaro.find, folder(datumaro_box(BOX, 0), change=older)))["a.png"]


def items_of(value):
    return lambda content: content.update(items=value)


def first_item(**fields):
    return lambda content: content["items"][0].update(fields)


@pytest.mark.parametrize(
    "bad, message",
    [
        (datumaro_box(BOX, 2), "label_id is 2, but there are 2 labels; write the number"),
        (datumaro_box(BOX, None), "label_id is None"),
        (datumaro_box(BOX, 0, bbox=[1, 2, 3]), r"bbox is \[1, 2, 3\]"),
        (shape("polygon", points=[1, 2, 3, 4]), "write x and y of at least three points"),
        (shape("polygon", points=[1, 2, 3, 4, 5, None]), "points is"),
        (shape("ellipse", points=[1, 2, 3]), "write 4 numbers"),
        (shape("mask", rle={"counts": "x", "size": [4, 4]}), "rle|counts"),
        (shape("mask", rle={"counts": [16], "size": [4, 4]}), "has no pixels; delete it"),
        (shape("star"), "type is 'star'; write one of bbox"),
        ({"label_id": 0}, "has no field 'type'"),
        ("box", "is 'box'"),
    ],
)
def test_a_bad_annotation_is_an_error_that_names_it(folder, bad, message):
    root = folder(datumaro_box(BOX, 0), bad)
    with pytest.raises(DataError, match=f"item 'a': annotation 1: .*{message}"):
        read(datumaro.find, root)
    assert len(read(datumaro.find, root, on_error="skip").images[0].objects) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (items_of(None), "items is None; export the annotations again"),
        (items_of([{"annotations": []}]), "item 0: has no field 'id'"),
        (items_of([7]), "item 0: is 7"),
        (first_item(annotations={}), "item 'a': annotations is {}"),
        (first_item(image="a.png"), "item 'a': image is 'a.png'"),
        (
            first_item(image=None, video_frame={"frame_index": 3}),
            "item 'a': is a video frame; save",
        ),
        (first_item(id=5, image=None), "item 5: the image name is 5"),
        (lambda content: content["categories"].update(label=[1]), "categories is"),
        (lambda content: content["categories"]["label"].update(labels=[{}]), "categories is"),
    ],
)
def test_a_bad_item_is_an_error_that_names_it(folder, change, message):
    with pytest.raises(DataError, match=message):
        read(datumaro.find, folder(datumaro_box(BOX, 0), change=change))


def test_a_truncated_file_is_an_error(folder):
    path = folder(datumaro_box(BOX, 0)) / "annotations/train.json"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.json: is not JSON"):
        read(datumaro.find, path.parent.parent)


@pytest.mark.parametrize("share", [0.002, 0.05, 0.5, 1.0])
def test_boxes_of_run_lengths_are_those_of_the_pixels(share):
    rng = np.random.default_rng(int(1000 * share))
    for _ in range(20):
        mask = (rng.random((rng.integers(1, 40), rng.integers(1, 40))) < share).astype(np.uint8)
        mask.flat[rng.integers(mask.size)] = 1
        rle = coco_masks.encode(np.asfortranarray(mask))
        counts = {"counts": rle["counts"].decode(), "size": list(mask.shape)}
        assert box_of_rle(counts) == cv2.boundingRect(mask)
    assert box_of_rle({"counts": [2, 2, 5], "size": [3, 3]}) == (0, 0, 2, 3)
    assert box_of_rle({"counts": [9], "size": [3, 3]}) is None


@pytest.mark.parametrize(
    "rle",
    [
        *(None, {}, {"counts": "61X3", "size": [3]}, {"counts": [4, 4], "size": [3, 3]}),
        *({"counts": [10, -1], "size": [3, 3]}, {"counts": "\xff", "size": [3, 3]}),
        *({"counts": "oooooooooo0", "size": [3, 3]}, {"counts": "o", "size": [3, 3]}),
        {"counts": [9], "size": [0, 3]},
    ],
)
def test_what_is_not_a_mask_is_an_error(rle):
    with pytest.raises(ValueError, match=r"the (size|counts)"):
        box_of_rle(rle)


def test_files_written_by_datumaro_read_back_equal(tmp_path):
    datumaro_export(tmp_path, SMALL["train"], "datumaro")
    content = read(datumaro.find, tmp_path / "out")
    assert boxes(content) == expected(SMALL)
    assert all(image.path.is_file() for image in content.images)
