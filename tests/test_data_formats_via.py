"""VGG Image Annotator: JSON, project, CSV; shapes, the attribute that is the class, errors."""

import csv
import json
from pathlib import Path

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    globox_annotations,
    via3_json,
    via_json,
    via_region,
    write_image,
    write_via3,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.annotation_fields import NO_CLASSES
from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import via


def region(name="rect", attributes=None, **shape) -> dict:
    attributes = {"class": "cat"} if attributes is None else attributes
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": attributes}


@pytest.fixture
def folder(tmp_path):
    """A function that writes via_region_data.json, a.png with some regions."""

    def write(*regions, name: str = "a.png") -> Path:
        write_image(tmp_path, Annotated("a.png", 64, 48))
        content = {"key": {"filename": name, "size": 1, "regions": list(regions)}}
        (tmp_path / "via_region_data.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def as_json(path: Path, images: list[Annotated]) -> None:
    path.with_suffix(".json").write_text(json.dumps(via_json(images)), encoding="utf-8")


def as_version_1(path: Path, images: list[Annotated]) -> None:
    content = via_json(images)
    for entry in content.values():
        entry["regions"] = {str(n): r for n, r in enumerate(entry["regions"])}
    path.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")


def as_project(path: Path, images: list[Annotated]) -> None:
    content = {"_via_settings": {}, "_via_img_metadata": via_json(images), "_via_attributes": {}}
    path.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")


def as_csv(path: Path, images: list[Annotated]) -> None:
    header = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    rows = [[*header, "region_shape_attributes", "region_attributes"]]
    for image in images:
        start = [image.file_name, 123, "{}", len(image.boxes)]
        for number, box in enumerate(image.boxes):
            shape = via_region(box)
            rows.append([*start, number, *map(json.dumps, shape.values())])
        if not image.boxes:
            rows.append([*start, 0, "{}", "{}"])
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize("write", [as_json, as_version_1, as_project, as_csv])
def test_each_form_of_file_is_read(tmp_path, write):
    for split, images in SMALL.items():
        for image in images:
            write_image(tmp_path / split, image)
        write(tmp_path / split / "via_region_data", images)
    layout = via.find(tmp_path)
    assert layout.tool == "VGG Image Annotator" and set(layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(via.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split) and not content.notes
        assert all(image.path.is_file() for image in content.images)


def test_other_files_are_not_recognized(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "annotations": []}')
    (tmp_path / "a.csv").write_text("filename,class\n")
    assert via.find(tmp_path) is None and via.find(tmp_path / "a.json") is None
    assert via.find(tmp_path / "nothing") is None


def test_two_files_of_one_split_are_ambiguous(folder):
    root = folder(region(x=1, y=2, width=3, height=4))
    as_json(root / "other", SMALL["train"])
    with pytest.raises(DataError, match="set data.root to one of the files".replace(".", r"\.")):
        via.find(root)
    assert len(read(via.find, root / "via_region_data.json").images) == 1


def test_a_project_beside_its_own_export_is_read_once(tmp_path):
    for image in SMALL["train"]:
        write_image(tmp_path, image)
    as_json(tmp_path / "via_region_data", SMALL["train"])
    as_project(tmp_path / "project", SMALL["train"])
    assert boxes(read(via.find, tmp_path)) == expected({"train": SMALL["train"]})
    as_project(tmp_path / "project", SMALL["train"][:1])
    with pytest.raises(DataError, match=r"both project\.json and via_region_data\.json annotate"):
        via.find(tmp_path)


def test_regions_without_any_attribute_are_of_one_class(folder):
    content = read(via.find, folder(region(attributes={}, x=1, y=2, width=3, height=4)))
    assert content.images[0].objects[0].class_name == "object"
    assert reasons(content) == {NO_CLASSES: 1}


def test_regions_with_an_attribute_that_is_never_set_have_no_class(folder):
    root = folder(region(attributes={"kind": ""}, x=1, y=2, width=3, height=4))
    with pytest.raises(DataError, match="the class is ''"):
        read(via.find, root)


def test_boxes_of_all_shapes(folder):
    root = folder(
        region("polygon", all_points_x=[1, 5, 7], all_points_y=[9, 2, 8]),
        region("circle", cx=10, cy=20, r=5),
        region("ellipse", cx=10, cy=20, rx=5, ry=2),
        region("ellipse", cx=10, cy=20, rx=5, ry=2, theta=1.5707963267948966),
        region("point", cx=1, cy=2),
        region("polyline", all_points_x=[1, 2, 3], all_points_y=[1, 2, 3]),
    )
    content = read(via.find, root)
    found = [o.box for o in content.images[0].objects]
    assert found[:3] == [(1, 2, 6, 7), (5, 15, 10, 10), (5, 18, 10, 4)]
    assert found[3] == pytest.approx((8, 15, 4, 10))
    assert len(found) == 4 and reasons(content) == {OUTLINE: 1, NO_BOX: 1}


@pytest.mark.parametrize(
    "attributes, wanted",
    [
        ({"anything": "dog"}, "dog"),
        ({"color": "red", "Label": " dog "}, "dog"),
        ({"name": "x", "class": "dog"}, "dog"),
        ({"occluded": "no", "Species": "dog"}, "dog"),
        ({"kinds": {"dog": True, "cat": False}}, "dog"),
        ({"color": "", "kind": "dog"}, "dog"),
    ],
)
def test_the_attribute_that_is_the_class(folder, attributes, wanted):
    root = folder(region(attributes=attributes, x=1, y=2, width=3, height=4))
    assert read(via.find, root).images[0].objects[0].class_name == wanted


@pytest.mark.parametrize(
    "bad, message",
    [
        (region(x=1, y=2, width=3), "region 1: shape_attributes is"),
        (region(x=1, y=2, width=3, height="4"), "write numbers for x, y, width, height"),
        (region("polygon", all_points_x=[1, 2], all_points_y=[1, 2]), "all_points_x is [1, 2]"),
        (region("polygon", all_points_x=[1, 2, 3], all_points_y=[1, 2, 3, 4]), "region 1: shape"),
        (region("star"), "draw it as a rectangle"),
        (region(attributes={}, x=1, y=2, width=3, height=4), "region 1: the class is None"),
        (
            region(attributes={"class": {}}, x=1, y=2, width=3, height=4),
            "region 1: the class is {}",
        ),
        (region(attributes=[], x=1, y=2, width=3, height=4), "region 1: the class is None"),
        ({"shape_attributes": 3}, "region 1: shape_attributes is 3"),
    ],
)
def test_a_bad_region_is_an_error_that_names_it(folder, bad, message):
    root = folder(region(x=1, y=2, width=3, height=4), bad)
    with pytest.raises(DataError) as error:
        read(via.find, root)
    assert message in str(error.value) and "via_region_data.json" in str(error.value)
    assert len(read(via.find, root, on_error="skip").images[0].objects) == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"_via_settings": ', "is not JSON"),
        ('["_via_settings", "_via_img_metadata"]', "export the annotations again"),
        ('{"_via_img_metadata": 3}', "is 3"),
        ('{"_via_img_metadata": {"a": 3}}', "'a': is 3"),
        ('{"_via_img_metadata": {"a": {"filename": "a.png", "regions": [3]}}}', "regions is [3]"),
        ('{"_via_img_metadata": {"a": {"filename": 3}}}', "the image name is 3"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(folder, text, message):
    root = folder()
    (root / "via_region_data.json").write_text(text)
    with pytest.raises(DataError) as error:
        read(via.find, root)
    assert message in str(error.value) and "via_region_data.json" in str(error.value)


def test_attributes_none_of_which_is_the_class_are_an_error(folder):
    attributes = {"color": "red", "age": "3"}
    root = folder(region(attributes=attributes, x=1, y=2, width=3, height=4))
    with pytest.raises(DataError, match=r"attributes 'color', 'age'; rename the attribute"):
        read(via.find, root)


def test_files_written_by_globox_read_back_equal(tmp_path):
    annotations = globox_annotations(tmp_path, SMALL["train"])
    annotations.save_via_json(tmp_path / "via.json", image_folder=tmp_path)
    assert boxes(read(via.find, tmp_path)) == expected(SMALL)


def project3(*shapes: dict, kind: int = 4, options=None, file_type: int = 2) -> dict:
    """A project of version 3 with a.png and an attribute 'animal'."""
    content = via3_json([Annotated("a.png", 64, 48)], [])
    attribute = {"aname": "animal", "anchor_id": "FILE1_Z0_XY1", "type": kind}
    content["attribute"] = {"1": attribute | {"options": options or {}}}
    content["metadata"] = {f"1_{number}": shape for number, shape in enumerate(shapes)}
    content["file"]["1"]["type"] = file_type
    return content


def shape3(*xy, value="cat") -> dict:
    return {"vid": "1", "flg": 0, "z": [], "xy": list(xy), "av": {"1": value}}


@pytest.fixture
def folder3(tmp_path):
    def write(*shapes, **fields):
        write_image(tmp_path, Annotated("a.png", 64, 48))
        text = json.dumps(project3(*shapes, **fields))
        (tmp_path / "project.json").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_projects_of_version_3_are_read(tmp_path):
    write_via3(tmp_path, SMALL)
    assert set(via.find(tmp_path).splits) == {"train", "val"}
    for split in SMALL:
        assert boxes(read(via.find, tmp_path, split)) == expected(SMALL, split)


def test_shapes_of_version_3(folder3):
    root = folder3(
        shape3(2, 1, 2, 3, 4),
        shape3(3, 10, 20, 5),
        shape3(4, 10, 20, 5, 2),
        shape3(7, 1, 9, 5, 2, 7, 8),
        shape3(8, 1, 5, 4, 2, 7, 6, 3, 8),  # left, top, right and bottom of an object
        shape3(1, 1, 2),
        shape3(5, 1, 2, 3, 4),
        shape3(6, 1, 2, 3, 4, 5, 6),
        shape3(value="a note on the whole image"),
    )
    content = read(via.find, root)
    assert [o.box for o in content.images[0].objects] == [
        *((1, 2, 3, 4), (5, 15, 10, 10), (5, 18, 10, 4), (1, 2, 6, 7), (1, 2, 6, 6)),
    ]
    assert reasons(content) == {OUTLINE: 1, NO_BOX: 1}


@pytest.mark.parametrize("value, options", [("dog", {}), ("k", {"k": "dog", "c": "cat"})])
def test_the_class_of_version_3_is_a_text_or_an_option(folder3, value, options):
    root = folder3(shape3(2, 1, 2, 3, 4, value=value), options=options)
    assert read(via.find, root).images[0].objects[0].class_name == "dog"


@pytest.mark.parametrize(
    "bad, message",
    [
        (shape3(9, 1, 2, 3, 4, 5, 6), "shape_attributes is [9, 1, 2, 3, 4, 5, ..."),
        (shape3(2, 1, 2, 3), "shape_attributes is [2, 1, 2, 3]"),
        (shape3(2, 1, 2, "x", 4), "write numbers for x, y, width, height"),
        (shape3(7, 1, 2, 3), "all_points_x is [1, 3]"),
        (shape3(2, 1, 2, 3, 4, value={}), "the class is {}"),
        ({"vid": "1"}, "has no field 'xy'"),
        (3, "metadata '1_1': is 3"),
    ],
)
def test_a_bad_shape_of_version_3_is_an_error_that_names_it(folder3, bad, message):
    root = folder3(shape3(2, 1, 2, 3, 4), bad)
    with pytest.raises(DataError) as error:
        read(via.find, root)
    assert message in str(error.value) and "project.json" in str(error.value)
    assert len(read(via.find, root, on_error="skip").images[0].objects) == 1


def test_a_video_is_an_error(folder3):
    with pytest.raises(DataError, match="extract the frames"):
        read(via.find, folder3(file_type=4))
