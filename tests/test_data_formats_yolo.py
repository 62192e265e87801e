"""YOLO labels: the forms of folder, the forms of line, errors that name file and line."""

import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    write_dota,
    write_image,
    write_kitti,
    write_voc,
    write_yolo,
    write_yolo_darknet,
    write_yolo_roboflow,
    yolo_line,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.image_finder import SIMILAR
from retinanet_jax.data.annotations.label_lines import LINE_REPEATED
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats import (
    yolo,
    yolo_folders,
    yolo_label_folder,
    yolo_lines,
    yolo_pairs,
    yolo_yaml,
)
from retinanet_jax.data.formats.find_layout import find_layout

NAMES = "names: [cat, dog]\n"


@pytest.fixture
def folder(tmp_path):
    """A function that writes label files for a.png, b.png, ... and a data.yaml."""

    def write(*labels: str, yaml: str = "train: images\n" + NAMES) -> Path:
        for letter, text in zip("abcdefgh", labels, strict=False):
            write_image(tmp_path / "images", Annotated(f"{letter}.png", 64, 48))
            (tmp_path / "labels").mkdir(exist_ok=True)
            (tmp_path / "labels" / f"{letter}.txt").write_text(text, encoding="utf-8")
        (tmp_path / "data.yaml").write_text(yaml, encoding="utf-8")
        return tmp_path

    return write


def close(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for name, objects in wanted.items():
        assert [o[0] for o in found[name]] == [o[0] for o in objects]
        for one, other in zip(found[name], objects, strict=True):
            assert one[1:] == pytest.approx(other[1:], abs=1e-12)


@pytest.mark.parametrize(
    "write, tool, val",
    [
        (write_yolo, "YOLO with a YAML file", "val"),
        (write_yolo_roboflow, "YOLO as exported by Roboflow", "val"),
        (write_yolo_darknet, "YOLO for Darknet (obj.data)", "valid"),
    ],
)
def test_each_form_of_folder_is_recognised_and_read(tmp_path, write, tool, val):
    write(tmp_path, SMALL)
    layout = yolo.find(tmp_path)
    assert (layout.name, layout.tool) == ("yolo", tool)
    assert set(layout.splits) == {"train", val}
    for split, written in (("train", "train"), (val, "val")):
        content = read(yolo.find, tmp_path, split)
        assert content.class_names == ("cat", "dog")
        close(boxes(content), expected(SMALL, written, shares=True))
        assert all(image.path.is_file() for image in content.images)
        assert not content.notes


def test_folders_without_a_yaml_file_are_recognised(tmp_path):
    write_yolo(tmp_path, SMALL)
    (tmp_path / "data.yaml").unlink()
    assert set(yolo.find(tmp_path).splits) == {"train", "val"}
    content = read(yolo.find, tmp_path)
    assert content.class_names is None  # no file names them
    assert {o.class_name for image in content.images for o in image.objects} == {"0", "1"}
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n", encoding="utf-8")
    assert read(yolo.find, tmp_path).class_names == ("cat", "dog")


def test_images_beside_the_split_folders_are_reported(tmp_path):
    write_yolo(tmp_path, SMALL)
    (tmp_path / "data.yaml").unlink()
    write_image(tmp_path / "images", Annotated("loose.png", 64, 48))
    write_image(tmp_path / "images" / "later", Annotated("more.png", 64, 48))
    content = read(yolo.find, tmp_path)
    assert boxes(content).keys() == {image.file_name for image in SMALL["train"]}
    reported = [Path(where).name for reason, where in content.notes if reason == yolo_folders.LOOSE]
    assert reported == ["loose.png", "more.png"]


def test_one_folder_of_labels_also_has_those_of_images_beside_a_split(tmp_path):
    for place, image in (("", SMALL["train"][0]), ("test", SMALL["val"][0])):
        write_image(tmp_path / "images" / place, image)
        lines = [yolo_line(image, box, ["cat", "dog"]) + "\n" for box in image.boxes]
        path = (tmp_path / "labels" / image.file_name).with_suffix(".txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    layout = yolo.find(tmp_path)
    assert layout.splits == ("train", "test")
    train = read(yolo.find, tmp_path)
    close(boxes(train), {"a.png": expected(SMALL, shares=True)["a.png"]})
    close(boxes(read(yolo.find, tmp_path, "test")), expected(SMALL, "val", shares=True))
    assert not train.notes
    # One label file is not that of both images of its name.
    write_image(tmp_path / "images" / "test", SMALL["train"][0])
    assert yolo.find(tmp_path).unlabelled == ("test",)


def test_a_dataset_beside_images_with_splits_is_counted(tmp_path):
    write_yolo(tmp_path, SMALL)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    write_image(tmp_path / "more" / "images", Annotated("x.png", 64, 48))
    (tmp_path / "more" / "labels").mkdir()
    (tmp_path / "more" / "labels" / "x.txt").write_text("0 .5 .5 .2 .2\n", encoding="utf-8")
    write_image(tmp_path / "docs", Annotated("figure.png", 64, 48))
    content = read(yolo.find, tmp_path)
    close(boxes(content), expected(SMALL, shares=True))
    assert content.notes == ((yolo_folders.LOOSE, str(tmp_path / "more/images/x.png")),)


def test_split_folders_with_images_and_labels_in_them(tmp_path):
    write_yolo_roboflow(tmp_path, SMALL)
    (tmp_path / "data.yaml").rename(tmp_path / "train" / "labels" / "data.txt")
    (tmp_path / "train" / "labels" / "data.txt").unlink()
    (tmp_path / "train" / "labels" / "classes.txt").write_text("cat\ndog", encoding="utf-8")
    assert set(yolo.find(tmp_path).splits) == {"train", "valid"}
    close(boxes(read(yolo.find, tmp_path)), expected(SMALL, shares=True))


def test_labels_beside_the_images_as_labelimg_writes_them(tmp_path):
    for image in SMALL["train"]:
        write_image(tmp_path, image)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.25 0.5\n", encoding="utf-8")
    (tmp_path / "classes.txt").write_text("cat\n", encoding="utf-8")
    content = read(yolo.find, tmp_path)
    assert boxes(content)["a.png"] == [("cat", 0.375, 0.25, 0.25, 0.5)]
    assert reasons(content) == {yolo.NO_LABELS: 2}


def test_labels_beside_the_images_of_splits_as_roboflow_exports_them_for_darknet(tmp_path):
    for split, images in SMALL.items():
        for image in images:
            write_image(tmp_path / split, image)
            lines = [yolo_line(image, box, ["cat", "dog"]) for box in image.boxes]
            label_file = (tmp_path / split / image.file_name).with_suffix(".txt")
            label_file.write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / split / "_darknet.labels").write_text("cat\ndog\n", encoding="utf-8")
    (tmp_path / "README.roboflow.txt").write_text("Exported", encoding="utf-8")
    content = read(yolo.find, tmp_path)
    assert content.class_names == ("cat", "dog")
    close(boxes(content), expected(SMALL, shares=True))


@pytest.mark.parametrize(
    "images, labels",
    [
        ("images/images/{}", "labels/labels/{}"),  # archives extracted into folders of their names
        ("images/images/{}", "labels/{}"),
        ("images/{}", "labels/labels/{}"),
        ("imgs/{}", "txt/{}"),
        ("images/{}", "annotations/{}"),
        ("{}/images", "{}/label"),
        ("images/{}", "labels"),  # of all splits
        ("{}", "labels/{}"),
        ("{}_images", "{}_labels"),
    ],
)
def test_labels_are_found_for_the_folder_of_the_images(tmp_path, images, labels):
    for split, found in SMALL.items():
        for image in found:
            write_image(tmp_path / images.format(split), image)
            lines = [yolo_line(image, box, ["cat", "dog"]) for box in image.boxes]
            path = (tmp_path / labels.format(split) / image.file_name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    assert set(yolo.find(tmp_path).splits) == set(SMALL)
    for split in SMALL:
        content = read(yolo.find, tmp_path, split)
        close(boxes(content), expected(SMALL, split, shares=True))
        assert not content.notes and content.class_names == ("cat", "dog")


def test_a_yaml_file_without_a_label_file_is_an_error_or_of_another_layout(tmp_path):
    """Roboflow's export for YOLOv5 with oriented boxes has DOTA's labels."""
    write_yolo_roboflow(tmp_path, SMALL)
    for path in list(tmp_path.rglob("labels")):
        shutil.rmtree(path)
    (tmp_path / "labels.zip").touch()
    wanted = r"no label file for an image of train, val; put them into .*, or extract labels\.zip"
    with pytest.raises(DataError, match=wanted):
        find_layout(tmp_path)
    write_dota(tmp_path / "written", SMALL)
    for split, name in (("train", "train"), ("val", "valid")):
        shutil.copytree(tmp_path / "written" / split / "labelTxt", tmp_path / name / "labelTxt")
    shutil.rmtree(tmp_path / "written")
    found = find_layout(tmp_path)
    assert found.layout.name == "dota" and set(found.layout.splits) == {"train", "valid"}
    assert boxes(read(lambda _: found.layout, tmp_path)) == expected(SMALL)


@pytest.mark.parametrize("labels", ["1", "train/1", "train/1 2"])
def test_one_label_file_is_not_that_of_images_in_two_splits(tmp_path, labels):
    for split, name in (("train", "1"), ("train", "3"), ("val", "1"), ("val", "2")):
        write_image(tmp_path / "images" / split, Annotated(f"{name}.png", 64, 48))
    for name in labels.split():
        path = tmp_path / f"labels/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cell]\n")
    if labels == "1":
        with pytest.raises(DataError, match="no label file"):
            read(yolo.find, tmp_path)
    else:
        layout = yolo.find(tmp_path)
        assert (layout.splits, layout.unlabelled) == (("train",), ("val",))


@pytest.mark.parametrize("other", ["labels/cells", "txt", "my_labels/cells"])
def test_labels_beside_the_images_come_before_those_of_a_guessed_folder(tmp_path, other):
    root = tmp_path / ("my_images/cells" if other.startswith("my") else "cells")
    write_image(root, Annotated("1.png", 64, 48))
    (root / "1.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / other).mkdir(parents=True)
    (tmp_path / other / "1.txt").write_text("0 .9 .9 .1 .1\n0 .8 .8 .1 .1\n")
    (image,) = read(yolo.find, root).images
    assert len(image.objects) == 1


def test_a_label_file_may_have_the_whole_name_of_its_image(folder):
    root = folder("0 .5 .5 .1 .1", "1 .5 .5 .1 .1")
    for path in (root / "labels").iterdir():
        path.rename(path.with_suffix(".png.txt"))
    found = boxes(read(yolo.find, root))
    assert [found[name][0][0] for name in ("a.png", "b.png")] == ["cat", "dog"]


def test_a_second_label_file_of_an_image_is_counted(folder):
    """YOLO reads a.txt; a.png.txt may have any text."""
    root = folder("0 .5 .5 .1 .1", "1 .5 .5 .1 .1")
    shutil.copy(root / "labels/b.txt", root / "labels/a.png.txt")
    content = read(yolo.find, root)
    assert boxes(content)["a.png"][0][0] == "cat"
    assert (yolo.SECOND, str(root / "labels/a.png.txt")) in content.notes
    assert reasons(content) == {yolo.SECOND: 1}


def test_labels_of_no_split_are_an_error_where_one_folder_has_those_of_all(tmp_path):
    write_yolo(tmp_path, SMALL)
    for path in list((tmp_path / "labels").rglob("*.txt")):
        path.rename(tmp_path / "labels" / path.name)
    for split in SMALL:
        (tmp_path / "labels" / split).rmdir()
    shutil.copy(tmp_path / "labels/a.txt", tmp_path / "labels/lost.txt")
    with pytest.raises(DataError, match=r"lost\.txt: has no image of the same name"):
        read(yolo.find, tmp_path)


def test_the_labels_of_a_release_of_voc_do_not_hide_its_splits(tmp_path):
    """Darknet's voc_label.py writes labels/ into it."""
    write_voc(tmp_path, SMALL)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .1 .1\n", encoding="utf-8")
    assert find_layout(tmp_path).layout.name == "voc"


def test_a_folder_of_other_annotations_is_not_that_of_the_labels(tmp_path):
    write_voc(tmp_path, SMALL)
    for image in SMALL["train"][:1]:
        path = (tmp_path / "JPEGImages" / image.file_name).with_suffix(".txt")
        path.write_text("0 .5 .5 .1 .1\n", encoding="utf-8")
    labels = yolo_label_folder.label_folder(str(tmp_path / "JPEGImages"))
    assert labels == str(tmp_path / "JPEGImages")


@pytest.mark.parametrize(
    "place, stated",
    [
        ("dataset/dataset", "path: /kaggle/input/dataset/dataset\n"),
        ("dataset/dataset", "path: C:\\work\\dataset\n"),
        ("unzipped/inner", ""),
    ],
)
def test_the_folders_of_a_yaml_file_may_be_in_one_below(tmp_path, place, stated):
    write_yolo(tmp_path / place, SMALL)
    (tmp_path / place / "data.yaml").unlink()
    yaml = f"{stated}train: images/train\nval: images/val\n{NAMES}"
    (tmp_path / "data.yaml").write_text(yaml, encoding="utf-8")
    for split in SMALL:
        close(boxes(read(yolo.find, tmp_path, split)), expected(SMALL, split, shares=True))
    write_yolo(tmp_path / "copy", SMALL)
    (tmp_path / "images.zip").touch()
    if not stated:  # which of the two is meant?
        wanted = r"train: 'images/train' does not exist; .*, or extract images\.zip"
        with pytest.raises(DataError, match=wanted):
            yolo.find(tmp_path)


def test_other_text_files_are_not_labels(tmp_path):
    write_image(tmp_path / "images", SMALL["train"][0])
    (tmp_path / "labels").mkdir()
    kitti = "Car 0.00 0 -1.57 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 13.22 1.62\n"
    (tmp_path / "labels" / "a.txt").write_text(kitti, encoding="utf-8")
    assert yolo.find(tmp_path) is None
    assert yolo.find(tmp_path / "labels" / "a.txt") is None
    assert yolo.find(tmp_path / "nothing") is None


BAD_LINES = ["0 nan 0.5 0.1 0.1", "0,0.5,0.5,0.1,0.1", "0 0.5 0.5 0.1", "cat 0.5 0.5 0.1 0.1"]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_first_line_does_not_hide_the_folder(folder, bad):
    root = folder(bad, "0 .5 .5 .1 .1")
    (root / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"a\.txt: line 1: "):
        read(yolo.find, root)


@pytest.mark.parametrize("bad", BAD_LINES)
def test_bad_lines_alone_are_listed_if_the_layout_is_named(folder, bad):
    root = folder(bad, bad)
    (root / "data.yaml").unlink()
    with pytest.raises(DataError, match="no layout fits"):
        find_layout(root)
    guard = Guard("strict", Report())
    find_layout(root, "yolo").layout.read("train", guard)
    with pytest.raises(DataError, match=r"(?s)has 2 errors.*a\.txt: line 1: .*b\.txt: line 1"):
        guard.finish(root)


def test_kitti_that_the_user_calls_yolo_is_still_kitti(tmp_path):
    write_kitti(tmp_path, SMALL)
    with pytest.raises(DataError, match="not in the layout 'yolo' but in 'kitti'"):
        find_layout(tmp_path, "yolo")


def test_subfolders_are_read_and_named(tmp_path, folder):
    root = folder("0 .5 .5 .1 .1")
    write_image(root / "images" / "deep" / "er", Annotated("z.png", 64, 48))
    (root / "labels" / "deep" / "er").mkdir(parents=True)
    (root / "labels" / "deep" / "er" / "z.txt").write_text("1 .5 .5 .2 .2", encoding="utf-8")
    content = read(yolo.find, root)
    names = [image.file_name for image in content.images]
    assert names == ["images/a.png", "images/deep/er/z.png"]
    assert content.images[1].objects[0].class_name == "dog"


def test_empty_and_missing_label_files_are_images_without_objects(folder):
    root = folder("0 .5 .5 .1 .1", "", " \n\n", "1 .5 .5 .1 .1")
    (root / "labels" / "d.txt").unlink()
    content = read(yolo.find, root)
    assert [len(image.objects) for image in content.images] == [1, 0, 0, 0]
    assert reasons(content) == {yolo.NO_LABELS: 1}


def test_polygons_oriented_boxes_and_extra_fields(folder):
    root = folder(
        "0 .1 .2 .5 .1 .3 .6\n",  # a triangle
        "1 .4 .1 .6 .3 .4 .5 .2 .3\n",  # a square on its corner
        "0 .5 .5 .2 .4 .87\n",  # a confidence
    )
    content = read(yolo.find, root)
    found = boxes(content)
    assert found["a.png"][0][1:] == pytest.approx((0.1, 0.1, 0.4, 0.5))
    assert found["b.png"][0][1:] == pytest.approx((0.2, 0.1, 0.4, 0.4))
    assert found["c.png"][0][1:] == pytest.approx((0.4, 0.3, 0.2, 0.4))
    assert reasons(content) == {yolo_lines.POLYGON: 2, yolo_lines.EXTRA_FIELD: 1}


def test_keypoints_are_ignored_where_the_yaml_file_has_them(folder):
    root = folder(
        "0 .5 .5 .2 .4 .1 .1 2 .9 .9 1\n", yaml="train: images\nkpt_shape: [2, 3]\n" + NAMES
    )
    content = read(yolo.find, root)
    assert boxes(content)["a.png"][0][1:] == pytest.approx((0.4, 0.3, 0.2, 0.4))
    assert reasons(content) == {yolo_lines.KEYPOINTS: 1}


BOX = "0 .5 .5 .2 .4"


@pytest.mark.parametrize(
    "label_file, reason",
    [
        (BOX + " .45 .6 2" * 17, yolo_lines.KEYPOINTS),  # 55 numbers
        (BOX + " .45 .6 1 0 0 0 .55 .4 2 .5 .5 2", yolo_lines.KEYPOINTS),  # 16 numbers
        (f"{BOX} .9 1\n0 .5 .5 .1 .1 .8 0\n0 .5 .5 .1 .3 .7 23", yolo_lines.EXTRA_FIELD),
        (f"{BOX} .9 1", yolo_lines.EXTRA_FIELD),
    ],
)
def test_numbers_behind_a_box_that_no_polygon_has_are_ignored(folder, label_file, reason):
    content = read(yolo.find, folder(label_file))
    assert boxes(content)["a.png"][0][1:] == pytest.approx((0.4, 0.3, 0.2, 0.4))
    assert reasons(content) == {reason: 1}


@pytest.mark.parametrize(
    "polygon",
    [
        "0 .4 .8 .6 .8 .5 1",  # a triangle on the lower border
        "0 .1 .1 .2 .1 .1 .2\n0 .5 .5 .1 .2 .87 1",  # a triangle beside others
        "0 .2 .2 .3 .3 .1 1\n0 .4 .4 .5 .5 .3 1",  # tracks have different numbers
        "0 .7 .7 .9 .6 1 .65 1 .8 .6 1",  # in the lower right corner
        BOX + " .1 .1 1 .2 .2 1",  # no keypoints of this box
    ],
)
def test_other_lines_of_the_same_length_are_polygons(folder, polygon):
    assert reasons(read(yolo.find, folder(polygon))) == {yolo_lines.POLYGON: 1}


def test_a_repeated_line_is_read_once(folder):
    content = read(yolo.find, folder("0 .5 .5 .1 .1\n0  .5 .5 .1 .1\n0 .5 .5 .1 .2\n"))
    assert len(content.images[0].objects) == 2
    assert reasons(content) == {LINE_REPEATED: 1}


@pytest.mark.parametrize(
    "line, message",
    [
        ("2 .5 .5 .1 .1", "line 2: has the class 2, but classes are 0 to 1"),
        ("-1 .5 .5 .1 .1", "line 2: has the class -1"),
        ("0.5 .5 .5 .1 .1", "line 2: has the class 0.5"),
        ("nan .5 .5 .1 .1", "line 2: has the class nan"),
        ("cat .5 .5 .1 .1", "line 2: is 'cat .5"),
        ("0,.5,.5,.1,.1", "line 2: is '0,.5"),
        ("0 .5 .5 .1", "line 2: has 4 fields"),
        ("0 .5 .5 .1 .1 .2 .3 .4", "line 2: has 8 fields; write .* keypoints need kpt_shape"),
        ("0 .1 .1 .4 .1 .1 .4 1", "line 2: has 8 fields"),  # a triangle with a confidence
        ("0 320 240 20 30", "not fractions of the image size; divide x and width by"),
        (
            "0 nan .5 .1 .1",
            "line 2: is '0 nan .5 .1 .1'; write finite numbers with spaces",
        ),
        ("0 .1 .1 inf .2 .3 .3", "write finite numbers"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, line, message):
    root = folder(f"0 .5 .5 .1 .1\n{line}\n")
    with pytest.raises(DataError) as error:
        read(yolo.find, root)
    assert re.search(message, str(error.value)) and f"labels{os.sep}a.txt" in str(error.value)
    content = read(yolo.find, root, on_error="skip")
    assert len(content.images) == 1 and len(content.images[0].objects) == 1


def test_errors_of_several_files_are_listed_together(folder):
    with pytest.raises(DataError, match=r"has 3 errors"):
        read(yolo.find, folder("7 .5 .5 .1 .1", "1 2 3", "8 .5 .5 .1 .1"))


def test_labels_without_their_image_are_an_error(folder):
    root = folder("0 .5 .5 .1 .1", "0 .5 .5 .1 .1")
    (root / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.txt: has no image of the same name"):
        read(yolo.find, root)
    (root / "labels" / "b.txt").write_text("", encoding="utf-8")  # no object is lost
    assert len(read(yolo.find, root).images) == 1


@pytest.mark.parametrize(
    "image, labels, other, fix",
    [
        (
            "B\u0061\u0308r.png",
            "B\u00e4r.txt",
            "b\u00e4r.txt",
            "whose Unicode form differs",
        ),
        ("IMG.png", "img.txt", "Img.txt", "there is 'IMG.png', which differs in upper and lower"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_labels_of_a_similar_name_are_those_of_the_one_image(
    folder, image, labels, other, fix, beside
):
    root = folder("0 .5 .5 .1 .1")
    (root / "images" / image).write_bytes((root / "images/a.png").read_bytes())
    place = root / "labels"
    (place / labels).write_text("1 .5 .5 .1 .1", encoding="utf-8")
    if beside:
        place = place.rename(root / "moved")
        for path in list(place.iterdir()):
            path.rename(root / "images" / path.name)
        place = root / "images"
    content = read(yolo.find, root)
    assert boxes(content)[image][0][0] == "dog" and reasons(content) == {SIMILAR: 1}
    # If there are two, which are its labels?
    (place / other).write_text("0 .5 .5 .1 .1", encoding="utf-8")
    with pytest.raises(DataError, match=rf"\.txt: has no image of the same name; .*{fix}"):
        read(yolo.find, root)
    # Without its labels, the image would train the network to find nothing there.
    assert list(boxes(read(yolo.find, root, on_error="skip"))) == ["a.png"]


def test_labels_without_an_image_are_named_in_order(folder):
    root = folder(*["0 .5 .5 .1 .1"] * 8)
    for letter in "bcdefgh":
        (root / "images" / f"{letter}.png").unlink()
    with pytest.raises(DataError) as error:
        read(yolo.find, root)
    listed = re.findall(r"(\w)\.txt", str(error.value))
    assert listed == sorted(listed) and len(listed) > 4


def test_an_image_that_is_listed_twice_is_read_once(folder):
    root = folder("0 .5 .5 .1 .1", "", yaml="train: [list.txt, images]\n" + NAMES)
    (root / "list.txt").write_text("images/a.png\n./images/a.png\n", encoding="utf-8")
    content = read(yolo.find, root)
    assert list(boxes(content)) == ["a.png", "b.png"]
    wheres = [where for reason, where in content.notes if reason == yolo_pairs.REPEATED]
    assert wheres == [f"{root}/list.txt: images/a.png", f"{root}/images: images/a.png"]


def test_a_photograph_of_a_phone_is_read_unless_there_is_a_copy_of_it(folder):
    root = folder("0 .5 .5 .1 .1", "0 .5 .5 .1 .1")
    for name in ("a.HEIC", "b.HEIC"):  # b.png is gone: the labels are those of b.HEIC
        shutil.copy(Path(__file__).parent / "golden/phone.heic", root / "images" / name)
    (root / "images/b.png").unlink()
    assert list(boxes(read(yolo.find, root))) == ["a.png", "b.HEIC"]


def test_two_images_of_one_label_file_are_an_error(folder):
    root = folder("0 .5 .5 .1 .1")
    write_image(root / "images", Annotated("a.bmp", 64, 48))
    with pytest.raises(DataError, match=r"shares the label file a\.txt"):
        read(yolo.find, root)


def test_text_with_a_byte_order_mark_is_read(folder):
    root = folder("", "")
    (root / "labels" / "a.txt").write_bytes("\ufeff0 .5 .5 .5 .5\r\n".encode())
    (root / "labels" / "b.txt").write_bytes("1 .5 .5 .5 .5\n".encode("utf-16"))
    found = boxes(read(yolo.find, root))
    assert found == {
        "a.png": [("cat", 0.25, 0.25, 0.5, 0.5)],
        "b.png": [("dog", 0.25, 0.25, 0.5, 0.5)],
    }
    (root / "labels" / "a.txt").write_bytes(b"\xff\x00\xfe\x81")
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read(yolo.find, root)


@pytest.mark.parametrize(
    "names, wanted",
    [
        ("names: {0: cat, 1: dog}", ("cat", "dog")),
        ("names:\n  1: dog\n  0: cat\n", ("cat", "dog")),
        ("names: [no, 01]", ("no", "01")),
        ("nc: 2", ("class_0", "class_1")),
        ("nc: 2\nnames: ['größe', '猫']", ("größe", "猫")),
    ],
)
def test_names_of_classes(folder, names, wanted):
    root = folder("0 .5 .5 .1 .1", yaml=f"train: images\n{names}\n")
    assert read(yolo.find, root).class_names == wanted


@pytest.mark.parametrize(
    "text, message",
    [
        ("train: images\nnames: [cat, cat]", "'cat' is also class 1"),
        ("train: images\nnames: []", "has no class name"),
        ("train: images\nnames: cat", "write a list of class names"),
        ("train: images\nnames: {a: cat}", "number the classes from 0"),
        ("train: images\nnames: [[a], b]", "write a list of class names"),
        ("train: images\nnc: 3\nnames: [cat, dog]", "nc is 3, but names has 2"),
        ("train: nowhere\nnames: [cat]", "'nowhere' does not exist"),
        ("val: nowhere\nnames: [cat]", "names no existing folder"),
        ("train: {a: b}\nnames: [cat]", "write a folder, a text file or a list"),
        ("train: [images\nnames: [cat]", "is not YAML"),
        ("train: /x/a/images\nval: /x/b/images\nnames: [cat]", "both lead to"),
        ("train: labels\nnames: [cat]", "labels, which has no image"),
    ],
)
def test_a_bad_yaml_file_is_an_error_that_names_it(folder, text, message):
    with pytest.raises(DataError) as error:
        read(yolo.find, folder("0 .5 .5 .1 .1", yaml=text))
    assert message in str(error.value) and "data.yaml" in str(error.value)


def test_a_split_without_its_folder_is_left_out_and_noted(folder):
    root = folder("0 .5 .5 .1 .1", yaml="train: images\nval: ../valid/images\n" + NAMES)
    assert yolo.find(root).splits == ("train",)
    assert reasons(read(yolo.find, root)) == {yolo_yaml.MISSING: 1}


def test_an_empty_folder_is_left_out_like_a_missing_one(folder):
    root = folder("0 .5 .5 .1 .1", yaml="train: images\nval: valid/images\n" + NAMES)
    (root / "valid" / "images").mkdir(parents=True)
    assert yolo.find(root).splits == ("train",)
    assert reasons(read(yolo.find, root)) == {yolo_yaml.MISSING: 1}
    (root / "val.txt").write_text("\n", encoding="utf-8")
    (root / "data.yaml").write_text("train: images\nval: val.txt\n" + NAMES, encoding="utf-8")
    assert yolo.find(root).splits == ("train",)
    (root / "data.yaml").write_text("train: valid/images\n" + NAMES, encoding="utf-8")
    with pytest.raises(DataError, match=r"train: 'valid/images' is .*, which has no image; write"):
        yolo.find(root)


def test_a_split_keeps_the_folders_that_exist(folder):
    yaml = "train: train/images\nval: [valid/images, extra/images]\n" + NAMES
    root = folder("0 .5 .5 .1 .1", yaml=yaml)
    (root / "train").mkdir()
    for name in ("images", "labels"):
        (root / name).rename(root / "train" / name)
    write_image(root / "valid" / "images", Annotated("v.png", 64, 48))
    (root / "valid" / "labels").mkdir()
    (root / "valid" / "labels" / "v.txt").write_text("1 .5 .5 .1 .1", encoding="utf-8")
    content = read(yolo.find, root, "val")
    assert list(boxes(content)) == ["v.png"] and reasons(content) == {yolo_yaml.MISSING: 1}
    assert "val: 'extra/images'" in content.notes[0][1]


def test_the_folder_of_a_dataset_may_be_renamed(folder):
    yaml = "train: ../coins/images/\nval: ../coins/images/\n" + NAMES
    root = folder("0 .5 .5 .1 .1", yaml=yaml)
    assert yolo.find(root).splits == ("train", "val")
    assert boxes(read(yolo.find, root, "val")) == boxes(read(yolo.find, root, "train"))
    yaml = "train: images\nval: ../coins/val/images/\n" + NAMES  # not the images of train
    assert yolo.find(folder("0 .5 .5 .1 .1", yaml=yaml)).splits == ("train",)


@pytest.mark.parametrize("renamed", ["val", "validation", "validate"])
def test_a_split_folder_renamed_after_the_export_is_found(folder, renamed):
    root = folder("0 .5 .5 .1 .1", yaml="train: images\nval: ../valid/images\n" + NAMES)
    write_image(root / renamed / "images", Annotated("b.png", 64, 48))
    (root / renamed / "labels").mkdir()
    (root / renamed / "labels" / "b.txt").write_text("0 .5 .5 .1 .1", encoding="utf-8")
    assert yolo.find(root).splits == ("train", "val")
    content = read(yolo.find, root, "val")
    assert list(boxes(content)) == ["b.png"]
    assert reasons(content)[yolo_yaml.RENAMED] == 1


def test_folders_of_another_machine_lists_and_several_folders(tmp_path):
    write_yolo(tmp_path, SMALL)
    text = "path: /content/drive/ds\ntrain: /content/drive/ds/images/train\n"
    (tmp_path / "data.yaml").write_text(
        text + "val: [images/train, 'C:\\ds\\images\\val']\ntest: test.txt\n" + NAMES,
        encoding="utf-8",
    )
    lines = ["./images/train/a.png", "/somewhere/else/images/val/d.png", "images/train/gone.png"]
    (tmp_path / "test.txt").write_text("\n".join(lines), encoding="utf-8")
    close(boxes(read(yolo.find, tmp_path)), expected(SMALL, shares=True))
    assert boxes(read(yolo.find, tmp_path, "val")).keys() == {"a.png", "b 1.png", "c.png", "d.png"}
    listed = read(yolo.find, tmp_path, "test")
    assert [im.path.is_file() for im in listed.images] == [True, False, True]  # by folder
    assert listed.images[2].objects[0].class_name == "cat"


def test_a_yaml_file_is_a_root_and_two_of_them_are_ambiguous(folder):
    root = folder("0 .5 .5 .1 .1")
    (root / "data.yaml").rename(root / "pets.yaml")
    (root / "other.yml").write_text("train: images\nnames: [x]\n", encoding="utf-8")
    (root / "hyperparameters.yaml").write_text("lr: .1\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"has several YAML files: other\.yml, pets\.yaml; set data\.root"
    ):
        yolo.find(root)
    assert read(yolo.find, root / "pets.yaml").class_names == ("cat", "dog")


def test_class_files_that_differ_are_an_error(tmp_path):
    write_yolo(tmp_path, SMALL)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    (tmp_path / "labels" / "classes.txt").write_text("dog\ncat\n", encoding="utf-8")
    with pytest.raises(DataError, match="its class names differ from those in"):
        yolo.find(tmp_path)


shares = st.floats(0.01, 1)
lines = st.lists(st.tuples(st.integers(0, 1), shares, shares, shares, shares), max_size=4)


@settings(max_examples=30, deadline=None)
@given(st.lists(lines, min_size=1, max_size=3))
def test_boxes_come_back(tmp_path_factory, content):
    images = [
        Annotated(
            f"{number}.png",
            64,
            48,
            tuple(
                Box(("cat", "dog")[label], x * 64, y * 48, w * 64, h * 48)
                for label, x, y, w, h in dict.fromkeys(objects)
            ),
        )
        for number, objects in enumerate(content)
    ]
    both = Annotated("z.png", 64, 48, (Box("cat", 0, 0, 1, 1), Box("dog", 0, 0, 1, 1)))
    root = tmp_path_factory.mktemp("yolo")
    write_yolo(root, {"train": [*images, both]})
    close(boxes(read(yolo.find, root)), expected({"train": [*images, both]}, shares=True))


def test_files_written_by_supervision_read_back_equal(tmp_path):
    sv = pytest.importorskip("supervision")
    np = pytest.importorskip("numpy")
    path = str(write_image(tmp_path / "in", SMALL["train"][0]))
    xyxy = np.array([[b.x, b.y, b.x + b.width, b.y + b.height] for b in SMALL["train"][0].boxes])
    detections = sv.Detections(xyxy=xyxy.astype(float), class_id=np.array([0, 1]))
    sv.DetectionDataset(["cat", "dog"], [path], {path: detections}).as_yolo(
        str(tmp_path / "out" / "images"),
        str(tmp_path / "out" / "labels"),
        str(tmp_path / "out" / "data.yaml"),
    )
    content = read(yolo.find, tmp_path / "out")
    wanted = expected({"train": SMALL["train"][:1]}, shares=True)
    assert content.class_names == ("cat", "dog")
    for one, other in zip(boxes(content)["a.png"], wanted["a.png"], strict=True):
        assert one[1:] == pytest.approx(other[1:], abs=1e-5)  # written with five digits
