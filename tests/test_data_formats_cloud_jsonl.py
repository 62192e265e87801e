"""JSON lines of Azure ML and Vertex AI: fractions, splits, polygons, crowds, broken lines."""

import json

import pytest
from data_settings import data_settings
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    azure_line,
    vertex_line,
    write_cloud_jsonl,
    write_cloud_jsonl_vertex,
    write_coco,
    write_image,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.image_finder import OTHER_FOLDER
from retinanet_jax.data.annotations.split_content import OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import cloud_jsonl
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

IMAGE = Annotated("a.png", 64, 48, (Box("cat", 4, 6, 20, 12),))
SHARES = ("cat", 4 / 64, 6 / 48, 20 / 64, 12 / 48)
LINES = {"azure": azure_line, "vertex": vertex_line}
OBJECTS = {"azure": "label", "vertex": "boundingBoxAnnotations"}
CLASS = {"azure": "label", "vertex": "displayName"}
LEFT, RIGHT = {"azure": "topX", "vertex": "xMin"}, {"azure": "bottomX", "vertex": "xMax"}
ADDRESS = {"azure": "image_url", "vertex": "imageGcsUri"}


@pytest.fixture
def folder(tmp_path):
    """A function that writes images/a.png and data.jsonl with some lines."""

    def write(*lines, newline="\n", name="data.jsonl"):
        write_image(tmp_path / "images", IMAGE)
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*texts, ""]), encoding="utf-8", newline=newline)
        return tmp_path

    return write


def changed(cloud: str, **changes) -> dict:
    """A line whose object has some other fields."""
    line = LINES[cloud](IMAGE)
    line[OBJECTS[cloud]][0] |= changes
    return line


def shares(content) -> list[tuple]:
    return [(o.class_name, *o.box) for image in content.images for o in image.objects]


@pytest.mark.parametrize(
    "write, tool, names",
    [
        (write_cloud_jsonl, "JSON lines of Azure ML", ("train", "val")),
        (write_cloud_jsonl_vertex, "JSON lines of Vertex AI", ("training", "validation")),
    ],
)
def test_each_split_is_read(tmp_path, write, tool, names):
    write(tmp_path, SMALL)
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.tool, layout.splits) == ("cloud_jsonl", tool, names)
    for split, name in zip(SMALL, names, strict=True):
        content = read(cloud_jsonl.find, tmp_path, name)
        found = boxes(content._replace(images=tuple(i._replace(size=None) for i in content.images)))
        wanted = expected(SMALL, split, shares=True)
        assert found.keys() == wanted.keys()
        for image, objects in wanted.items():
            assert [o[0] for o in found[image]] == [o[0] for o in objects]
            assert [o[1:] for o in found[image]] == [pytest.approx(o[1:]) for o in objects]


def test_the_records_are_in_pixels_of_the_files(folder, tmp_path):
    """The numbers of an image of 499 x 665 pixels, as in the documents of Azure ML."""
    line = {
        "image_url": "AmlDatastore://image_data/Image_01.png",
        "image_details": {"format": "png", "width": "499px", "height": 665},
        "label": [
            {
                "label": "can",
                **{"topX": 0.260, "topY": 0.406, "bottomX": 0.735, "bottomY": 0.701},
                "isCrowd": 0,
            }
        ],
    }
    empty = line | {"image_url": "AmlDatastore://image_data/Image_02.png", "label": []}
    root = folder(line, empty, newline="\r\n")
    for name in ("Image_01.png", "Image_02.png"):
        write_image(root / "images", Annotated(name, 499, 665))
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    truth = load_dataset(settings, "train").ground_truth()
    x, y, right, bottom = 0.260 * 499, 0.406 * 665, 0.735 * 499, 0.701 * 665
    wanted = pytest.approx([x, y, right - x, bottom - y], abs=1e-3)
    assert [a["bbox"] for a in truth["annotations"]] == [wanted]
    assert len(truth["images"]) == 2


@pytest.mark.parametrize("cloud", LINES)
@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "labels/train.jsonl", "data.ndjson"])
def test_no_other_layout_fits(folder, cloud, name):
    root = folder(LINES[cloud](IMAGE), name=name)
    assert [n for n, find in FINDERS.items() if find(root) is not None] == ["cloud_jsonl"]
    assert shares(read(cloud_jsonl.find, root)) == [pytest.approx(SHARES)]


def test_the_folders_of_mltables_are_splits(folder):
    folder(azure_line(IMAGE), name="training-mltable-folder/train_annotations.jsonl")
    root = folder(azure_line(IMAGE), name="validation-mltable-folder/validation_annotations.jsonl")
    assert set(cloud_jsonl.find(root).splits) == {"train", "validation"}
    assert read(cloud_jsonl.find, root, "validation").images[0].path == root / "images/a.png"


@pytest.mark.parametrize("crowd, wanted", [(1, True), (True, True), (0, False), (False, False)])
def test_crowds_are_ignored_regions(folder, crowd, wanted):
    content = read(cloud_jsonl.find, folder(changed("azure", isCrowd=crowd)))
    assert [o.crowd for o in content.images[0].objects] == [wanted]


def test_polygons_of_azure_have_their_bounding_box(folder):
    line = azure_line(IMAGE)
    rings = [[4 / 64, 6 / 48, 24 / 64, 6 / 48, 14 / 64, 18 / 48]]
    line["label"] = [{"label": "cat", "polygon": rings, "isCrowd": 0}]
    content = read(cloud_jsonl.find, folder(line))
    assert shares(content) == [pytest.approx(SHARES)]
    assert reasons(content) == {OTHER_FOLDER: 1, OUTLINE: 1}


def test_images_of_vertex_without_annotations_are_left_out_and_noted(folder):
    line = vertex_line(IMAGE)
    image = {"imageGcsUri": "gs://bucket/b.png", "dataItemResourceLabels": {}}
    content = read(cloud_jsonl.find, folder(line, image))
    assert shares(content) == [pytest.approx(SHARES)]
    assert reasons(content) == {OTHER_FOLDER: 1, cloud_jsonl.WITHOUT: 1}
    assert "line 2" in dict(content.notes)[cloud_jsonl.WITHOUT]


def test_images_of_vertex_without_a_split_are_for_training(folder):
    images = [IMAGE._replace(file_name=name) for name in ("b.png", "c.png", "d.png")]
    uses = None, "test", "unassigned"
    root = folder(*(vertex_line(i, use) for i, use in zip(images, uses, strict=True)))
    assert set(cloud_jsonl.find(root).splits) == {"train", "test"}
    names = [image.path.name for image in read(cloud_jsonl.find, root, "train").images]
    assert names == ["b.png", "d.png"]


@pytest.mark.parametrize("cloud", LINES)
def test_images_of_one_name_are_told_apart_by_their_folders(folder, cloud):
    line = LINES[cloud](IMAGE)
    address = line[ADDRESS[cloud]].replace("pets/", "one/")
    root = folder(line | {ADDRESS[cloud]: address})
    write_image(root / "images/one", IMAGE._replace(width=62))
    write_image(root / "images/two", IMAGE._replace(width=60))
    (root / "images/a.png").unlink()
    assert read(cloud_jsonl.find, root).images[0].path == root / "images/one/a.png"
    folder(line)
    (root / "images/a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png' may mean images/one/a\.png, images/two/a\.png"):
        read(cloud_jsonl.find, root)


@pytest.mark.parametrize("cloud", LINES)
def test_a_missing_image_is_named_with_its_line(folder, cloud, tmp_path):
    root = folder(LINES[cloud](IMAGE), LINES[cloud](IMAGE._replace(file_name="b.png")))
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    with pytest.raises(DataError, match=r"data\.jsonl: line 2: .*b\.png"):
        load_dataset(settings, "train")


def test_a_size_that_is_not_that_of_the_file_is_an_error(folder, tmp_path):
    line = azure_line(IMAGE) | {"image_details": {"width": "640px", "height": "480px"}}
    settings = data_settings("folder", folder(line), tmp_path / "cache", val_share=0.0)
    with pytest.raises(DataError, match="line 1: height x width is 480 x 640, but"):
        load_dataset(settings, "train")


@pytest.mark.parametrize("cloud", LINES)
def test_a_conversion_to_coco_is_preferred(folder, cloud):
    root = folder(LINES[cloud](IMAGE))
    write_coco(root, SMALL)
    assert find_layout(root).layout.name == "coco"


@pytest.mark.parametrize("cloud", LINES)
@pytest.mark.parametrize("change", ["pixels", "text", "class", "crowd", "missing"])
def test_a_bad_object_is_an_error_that_names_it(folder, cloud, change):
    changes, message = {
        "pixels": ({RIGHT[cloud]: 24}, "line 1: object 0: the box is '0.0625 0.125 24 0.375', wh"),
        "text": ({LEFT[cloud]: "0.1"}, "line 1: object 0: is {"),
        "class": ({CLASS[cloud]: ""}, "line 1: object 0: the class is ''"),
        "crowd": ({"isCrowd": "some"}, "line 1: object 0: isCrowd is 'some'; write 0 or 1"),
        "missing": ({RIGHT[cloud]: None}, f"write numbers for {LEFT[cloud]}, "),
    }[change]
    bad = changed(cloud, **changes)
    bad[OBJECTS[cloud]].append(LINES[cloud](IMAGE)[OBJECTS[cloud]][0])
    root = folder(bad)
    with pytest.raises(DataError) as error:
        read(cloud_jsonl.find, root)
    assert message in str(error.value) and "data.jsonl" in str(error.value)
    assert len(shares(read(cloud_jsonl.find, root, on_error="skip"))) == 1


@pytest.mark.parametrize("cloud", LINES)
@pytest.mark.parametrize(
    "bad, message",
    [
        ("{", "line 2: is not JSON"),
        ("3", "line 2: is 3; write a JSON object"),
        ({"azure": {"label": []}, "vertex": {"boundingBoxAnnotations": []}}, "line 2: has no fiel"),
        (
            {
                "azure": {"image_url": "b.png", "label": "cat"},
                "vertex": {"imageGcsUri": "b.png", "boundingBoxAnnotations": "cat"},
            },
            "is 'cat'; write a list of objects",
        ),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, cloud, bad, message):
    root = folder(LINES[cloud](IMAGE), bad[cloud] if isinstance(bad, dict) else bad)
    with pytest.raises(DataError) as error:
        read(cloud_jsonl.find, root)
    assert message in str(error.value) and "data.jsonl: line 2" in str(error.value)
    assert len(shares(read(cloud_jsonl.find, root, on_error="skip"))) == 1


def test_errors_of_the_split_and_of_a_polygon(folder):
    root = folder(vertex_line(IMAGE, "training"), vertex_line(IMAGE, "holdout"))
    with pytest.raises(DataError, match=r"line 2: .*ml_use is 'holdout'; write training, valid"):
        read(cloud_jsonl.find, root, "training")
    for rings in ([0.1, 0.2], [[0.1, 0.2, 0.3]], [[0.1, "x"] * 3]):
        line = azure_line(IMAGE) | {"label": [{"label": "cat", "polygon": rings}]}
        with pytest.raises(DataError, match=r"line 1: object 0: polygon is .*; write lists"):
            read(cloud_jsonl.find, folder(line))


def test_lines_about_whole_images_are_not_recognized(folder):
    root = folder({"image_url": "AmlDatastore://a.png", "label": "can"})
    assert cloud_jsonl.find(root) is None
