"""Scalabel's JSON as BDD100K has it: boxes of pixels, ignored labels, where files are found."""

import json

import pytest
from layout_writers import SMALL, Annotated, Box, scalabel, write_bdd100k, write_image
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import bdd100k, label_studio
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

CAR = scalabel(Box("car", 4, 6, 20, 12))


@pytest.fixture
def folder(tmp_path):
    """A function that writes a file of the training images."""

    def write(content, name: str = "labels/det_20/det_train.json"):
        write_image(tmp_path / "images/100k/train", Annotated("a.jpg", 64, 48))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def frame(*labels, **more):
    return {"name": "a.jpg", "timestamp": 10000, "labels": list(labels), **more}


def test_the_release_is_read(tmp_path):
    write_bdd100k(tmp_path, SMALL)
    layout = find_layout(tmp_path).layout
    assert (layout.name, set(layout.splits)) == ("bdd100k", {"train", "val"})
    assert label_studio.find(tmp_path / "labels") is None
    for split in SMALL:
        content = read(bdd100k.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert all(image.path.is_file() for image in content.images)


def test_the_last_corner_belongs_to_the_box(folder):
    label = {"category": "car", "box2d": {"x1": 1.5, "y1": 2, "x2": 10.5, "y2": 2}}
    assert boxes(read(bdd100k.find, folder([frame(label)])))["a.jpg"] == [("car", 1.5, 2, 10, 1)]


@pytest.mark.parametrize(
    "attributes, crowd",
    [
        ({"crowd": True}, True),
        ({"ignored": True}, True),
        ({"crowd": "True"}, True),
        ({"ignored": 1}, True),
        ({"crowd": "1"}, True),
        ({"crowd": False, "occluded": True}, False),
        ({"crowd": "false", "ignored": "0"}, False),
        ({"crowd": 0}, False),
        (None, False),
    ],
)
def test_crowds_and_ignored_labels_are_ignored_regions(folder, attributes, crowd):
    root = folder([frame(CAR, {**CAR, "attributes": attributes})])
    assert [o.crowd for o in read(bdd100k.find, root).images[0].objects] == [False, crowd]


def test_labels_without_a_box_are_left_out_and_noted(folder):
    lane = {"id": "7", "category": "lane", "poly2d": [{"vertices": [[1, 2], [3, 4]]}]}
    content = read(bdd100k.find, folder([frame(CAR, lane)]))
    assert [o.class_name for o in content.images[0].objects] == ["car"]
    assert reasons(content) == {bdd100k.NO_BOX2D: 1}


@pytest.mark.parametrize("none", [{"labels": None}, {"labels": []}, {}])
def test_a_frame_without_labels_has_no_boxes(folder, none):
    content = read(bdd100k.find, folder([frame(CAR), {"name": "b.jpg", **none}]))
    assert [len(image.objects) for image in content.images] == [1, 0]


def test_frames_of_an_object_with_sizes(folder):
    root = folder({"config": {}, "frames": [frame(CAR, size={"width": 64, "height": 48})]})
    assert read(bdd100k.find, root).images[0].size == (48, 64)


def test_frames_of_videos_are_in_the_folder_of_the_video(folder):
    root = folder([frame(CAR, videoName="v1")])
    write_image(root / "images/100k/train/v1", Annotated("a.jpg", 64, 48))
    assert read(bdd100k.find, root).images[0].file_name == "images/100k/train/v1/a.jpg"


def test_files_of_several_videos_may_use_the_same_names_of_frames(tmp_path):
    for video in "ab":
        write_image(tmp_path / "images" / video, Annotated("0001.jpg", 64, 48))
        content = [{"name": "0001.jpg", "videoName": video, "labels": [CAR]}]
        (tmp_path / f"{video}.json").write_text(json.dumps(content), encoding="utf-8")
    names = [image.file_name for image in read(bdd100k.find, tmp_path).images]
    assert names == ["images/a/0001.jpg", "images/b/0001.jpg"]
    (tmp_path / "c.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    assert len(read(bdd100k.find, tmp_path).images) == 2  # which states the same as b.json
    content[0]["labels"] = [CAR | {"category": "bus"}]
    (tmp_path / "c.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"both b\.json and c\.json annotate 'train'"):
        bdd100k.find(tmp_path)


def test_a_missing_image_is_missed_in_a_folder_that_is_there(tmp_path):
    write_image(tmp_path / "pictures", Annotated("a.jpg", 64, 48))
    content = [{"name": name, "labels": [CAR]} for name in ("a.jpg", "b.jpg")]
    (tmp_path / "train.json").write_text(json.dumps(content), encoding="utf-8")
    names = [image.file_name for image in read(bdd100k.find, tmp_path).images]
    assert names == ["pictures/a.jpg", "b.jpg"]
    write_image(tmp_path / "images/100k/train", Annotated("c.jpg", 64, 48))
    assert read(bdd100k.find, tmp_path).images[1].file_name == "images/100k/train/b.jpg"


def test_the_files_of_single_images_of_the_first_release(folder):
    content = {"name": "a", "frames": [{"timestamp": 10000, "objects": [CAR]}]}
    images = read(bdd100k.find, folder(content, "labels/100k/train/a.json")).images
    assert [image.path.name for image in images] == ["a.jpg"] and len(images[0].objects) == 1


@pytest.mark.parametrize(
    "lane", [{"poly2d": [[[1, 2, "L"]]]}, {"poly2d": [{"vertices": [[1, 2]]}]}]
)
def test_an_image_with_lanes_alone_has_no_objects(folder, lane):
    content = {"name": "a", "frames": [{"objects": [CAR]}]}
    lanes = {"name": "b", "frames": [{"objects": [{"category": "lane/road curb", **lane}]}]}
    root = folder(content, "labels/100k/train/a.json")
    write_image(root / "images/100k/train", Annotated("b.jpg", 64, 48))
    folder(lanes, "labels/100k/train/b.json")
    images = read(bdd100k.find, root).images
    assert [(im.path.name, len(im.objects)) for im in images] == [("a.jpg", 1), ("b.jpg", 0)]
    others = (name for name in FINDERS if name != "bdd100k")
    assert [name for name in others if FINDERS[name](root) is not None] == []


def test_the_file_of_the_release_of_2018(folder):
    root = folder([frame(CAR)], "labels/bdd100k_labels_images_train.json")
    assert bdd100k.find(root).splits == ("train",)
    assert read(bdd100k.find, root).images[0].path.is_file()


@pytest.mark.parametrize(
    "label, message",
    [
        ({**CAR, "box2d": {"x1": 1, "y1": 2, "x2": "x", "y2": 4}}, "label '1': box2d: is {'x1': 1"),
        ({**CAR, "box2d": [1, 2, 3, 4]}, "label '1': box2d: is [1, 2, 3, 4]; write numbers for x1"),
        ({**CAR, "category": None}, "label '1': the class is None; write the name of its class"),
        ("car", "label 1: box2d: is 'car'"),
    ],
)
def test_a_bad_label_is_an_error_that_names_it(folder, label, message):
    root = folder([frame(CAR, label)])
    with pytest.raises(DataError) as error:
        read(bdd100k.find, root)
    assert f"det_train.json: frame 'a.jpg': {message}" in str(error.value)
    assert len(read(bdd100k.find, root, on_error="skip").images[0].objects) == 1


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"labels": []}, "frame 1: has no field 'name'"),
        (frame() | {"labels": {"0": 1}}, "frame 1: labels is {'0': 1}; write a list of labels"),
        (7, "frame 1: is 7"),
    ],
)
def test_a_bad_frame_is_an_error_that_names_it(folder, bad, message):
    root = folder([frame(CAR), bad])
    with pytest.raises(DataError) as error:
        read(bdd100k.find, root)
    assert message in str(error.value)
    assert len(read(bdd100k.find, root, on_error="skip").images) == 1
