"""Label Studio's JSON: tasks, shapes in percent, names of uploaded files, errors."""

import json
import math

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    label_studio_result,
    label_studio_task,
    write_image,
    write_label_studio,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.image_finder import OTHER_FOLDER
from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import label_studio

IMAGE = Annotated("a.png", 64, 48, (Box("cat", 16, 12, 32, 6),))


@pytest.fixture
def folder(tmp_path):
    """A function that writes a.png and project.json with some tasks."""

    def write(*tasks):
        write_image(tmp_path, IMAGE)
        (tmp_path / "project.json").write_text(json.dumps(tasks), encoding="utf-8")
        return tmp_path

    return write


def task(*results, **fields) -> dict:
    annotations = [{"id": 1, "was_cancelled": False, "result": list(results)}]
    data = {"image": "/data/upload/1/0a1b2c3d-a.png"}
    return {"id": 7, "annotations": annotations, "data": data, **fields}


def shape(**value) -> dict:
    """A result of another type than a rectangle."""
    sizes = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    return {"type": "polygonlabels", **sizes, "value": value}


def pixels(root) -> list[tuple]:
    (image,) = read(label_studio.find, root).images
    assert image.path.is_file() and image.normalized
    return [
        tuple(v * s for v, s in zip(o.box, (64, 48, 64, 48), strict=True)) for o in image.objects
    ]


def test_each_split_is_read(tmp_path):
    write_label_studio(tmp_path, SMALL)
    layout = label_studio.find(tmp_path)
    assert layout.tool == "Label Studio JSON" and set(layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(label_studio.find, tmp_path, split)
        assert boxes(content).keys() == expected(SMALL, split).keys()
        assert all(image.path.is_file() for image in content.images)
        for name, wanted in expected(SMALL, split, shares=True).items():
            for one, other in zip(boxes(content)[name], wanted, strict=True):
                assert one[0] == other[0] and one[1:] == pytest.approx(other[1:])


def test_a_rectangle_is_rotated_about_its_top_left_corner(folder):
    quarter = label_studio_result(IMAGE, IMAGE.boxes[0], rotation=90)
    eighth = label_studio_result(IMAGE, Box("cat", 20, 10, 10, 10), rotation=45)
    root = folder(task(quarter, eighth))
    # Clockwise: the width of 32 points down, the height of 6 to the left.
    side = 10 * math.sqrt(2)
    wanted = [(10, 12, 6, 32), (20 - side / 2, 10, side, side)]
    assert pixels(root) == [pytest.approx(box) for box in wanted]
    assert reasons(read(label_studio.find, root)) == {OTHER_FOLDER: 1, OUTLINE: 1}


def test_polygons_ellipses_and_shapes_without_a_box(folder):
    root = folder(
        task(
            shape(points=[[25, 25], [50, 75], [75, 50]], polygonlabels=["cat"]),
            shape(x=50, y=50, radiusX=25, radiusY=12.5, rotation=90, ellipselabels=["cat"]),
            shape(x=10, y=10, width=1, keypointlabels=["cat"]),
            shape(format="rle", rle=[1, 2], brushlabels=["cat"]),
            {"id": "c", "type": "choices", "value": {"choices": ["night"]}},
        )
    )
    assert pixels(root) == [pytest.approx((16, 12, 32, 24)), pytest.approx((26, 8, 12, 32))]
    assert reasons(read(label_studio.find, root)) == {OTHER_FOLDER: 1, OUTLINE: 1, NO_BOX: 1}


def test_a_label_of_its_own_is_joined_to_its_shape(folder):
    rectangle = label_studio_result(IMAGE, IMAGE.boxes[0]) | {"id": "r", "type": "rectangle"}
    del rectangle["value"]["rectanglelabels"]
    label = {"id": "r", "type": "labels", "value": {**rectangle["value"], "labels": ["dog"]}}
    root = folder(task(rectangle, label))
    assert [o.class_name for o in read(label_studio.find, root).images[0].objects] == ["dog"]


def test_the_latest_annotation_counts_and_tasks_without_one_are_left_out(folder):
    old, new = (label_studio_result(IMAGE, Box(name, 1, 2, 3, 4)) for name in ("cat", "dog"))
    entries = [
        {"was_cancelled": False, "updated_at": "2024-02-01T00:00:00Z", "result": [new]},
        {"was_cancelled": False, "updated_at": "2024-01-01T00:00:00Z", "result": [old]},
        {"was_cancelled": True, "updated_at": "2024-03-01T00:00:00Z", "result": []},
    ]
    root = folder(task(annotations=entries), task(annotations=[]))
    content = read(label_studio.find, root)
    assert [o.class_name for o in content.images[0].objects] == ["dog"]
    assert reasons(content) == {OTHER_FOLDER: 1, label_studio.LATEST: 1, label_studio.WITHOUT: 1}


def min_task(name: str, **fields) -> dict:
    """An annotation of the task 1 as JSON-MIN."""
    result = label_studio_result(IMAGE, IMAGE.boxes[0]._replace(name=name))
    shape = {**result["value"], "original_width": 64, "original_height": 48}
    return {"image": "s3://bucket/a.png", "id": 1, "label": [shape], "annotator": 1, **fields}


def test_of_several_annotations_of_a_task_in_json_min_the_latest_is_read(folder):
    times = ("2024-01-02T10:00:00Z", "2024-03-01T00:00:00Z", "2024-02-03T00:00:00Z")
    names = ("first", "last", "middle")
    entries = [min_task(n, updated_at=t) for n, t in zip(names, times, strict=True)]
    write_image(folder(), Annotated("b.png", 64, 48))
    other = {"image": "b.png", "updated_at": "2023-01-01T00:00:00Z"}  # of another project
    root = folder(*entries, min_task("other", **other))
    content = read(label_studio.find, root)
    found = {name: [o[0] for o in of_image] for name, of_image in boxes(content).items()}
    assert found == {"a.png": ["last"], "b.png": ["other"]}
    assert reasons(content) == {label_studio.LATEST: 1}


@pytest.mark.parametrize("fields", [{}, {"updated_at": "2024-01-02T10:00:00Z"}])
def test_annotations_of_a_task_without_a_latest_one_are_kept(folder, fields):
    """Which the check of the split refuses: the image is used twice."""
    root = folder(min_task("cat", **fields), min_task("dog", **fields))
    assert len(read(label_studio.find, root).images) == 2


def test_json_min_is_read(folder):
    result = label_studio_result(IMAGE, IMAGE.boxes[0])
    shape = {**result["value"], "original_width": 64, "original_height": 48}
    root = folder({"image": "s3://bucket/a.png", "id": 1, "label": [shape], "annotator": 1})
    assert pixels(root) == [pytest.approx(tuple(IMAGE.boxes[0][1:]))]


def test_a_task_needs_no_id(folder):
    without = task(label_studio_result(IMAGE, IMAGE.boxes[0]))
    del without["id"]
    assert pixels(folder(without)) == [pytest.approx(tuple(IMAGE.boxes[0][1:]))]


@pytest.mark.parametrize(
    "name",
    [
        *("a.png", "/data/upload/1/0a1b2c3d-a.png", "/data/local-files/?d=deep/a.png"),
        *("s3://bucket/deep/a.png", "https://host.example/deep/a.png?X-Amz-Date=1", "C:\\x\\a.png"),
    ],
)
def test_the_image_is_found(folder, name):
    root = folder(task(data={"image": name, "author": "me"}))
    assert read(label_studio.find, root).images[0].path == root / "a.png"


@pytest.mark.parametrize(
    "bad, message",
    [
        ({**label_studio_result(IMAGE, IMAGE.boxes[0]), "image_rotation": 90}, "image_rotation is"),
        (label_studio_result(IMAGE, IMAGE.boxes[0], x="left"), "write numbers for x, y, width"),
        (label_studio_result(IMAGE, IMAGE.boxes[0], rectanglelabels=["a", "b"]), "the class is ["),
        (label_studio_result(IMAGE, IMAGE.boxes[0], rectanglelabels=[]), "the class is []"),
        ({"value": {"points": [[1, 2]], "polygonlabels": ["cat"]}}, "points is [[1, 2]]"),
        ({"value": {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 5}}, "original_width"),
    ],
)
def test_a_bad_shape_is_an_error_that_names_it(folder, bad, message):
    root = folder(task(label_studio_result(IMAGE, IMAGE.boxes[0]), bad))
    with pytest.raises(DataError) as error:
        read(label_studio.find, root)
    assert message in str(error.value) and "task 7: result 1" in str(error.value)
    assert len(read(label_studio.find, root, on_error="skip").images[0].objects) == 1


@pytest.mark.parametrize(
    "bad, message",
    [
        (task(annotations=[3]), "annotations is [3]"),
        (task(annotations=[{"result": 3}]), "result is 3"),
        (task(3), "result 0 is 3"),
        (task(data={"text": "a story"}), "name one image, under 'image'"),
        ("text", "[1]: is 'text'"),
    ],
)
def test_a_bad_task_is_an_error(folder, bad, message):
    root = folder(task(), bad)
    with pytest.raises(DataError) as error:
        read(label_studio.find, root)
    assert message in str(error.value) and "project.json" in str(error.value)
    assert len(read(label_studio.find, root, on_error="skip").images) == 1


def test_label_studios_own_converter_gives_the_same_boxes(tmp_path):
    converter = pytest.importorskip("label_studio_sdk.converter")
    # Square: the converter rotates boxes in percent, which is correct for square images alone.
    square = Annotated("b.png", 64, 64, (Box("cat", 30, 8, 25, 40), Box("dog", 20, 10, 20, 10)))
    images = [SMALL["train"][0], square]
    for image in images:
        write_image(tmp_path, image)
    tasks = [label_studio_task(image, number) for number, image in enumerate(images)]
    tasks[1]["annotations"][0]["result"][1]["value"]["rotation"] = 30
    (tmp_path / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    view = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        '<Label value="cat"/><Label value="dog"/></RectangleLabels></View>'
    )
    made = converter.Converter(view, str(tmp_path), download_resources=False)
    made.convert_to_coco(
        str(tmp_path / "tasks.json"), str(tmp_path / "out"), is_dir=False, output_image_dir="x"
    )
    coco = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    content = read(label_studio.find, tmp_path)
    ours = [
        tuple(v * s for v, s in zip(o.box, (im.width, im.height) * 2, strict=True))
        for im, read_image in zip(images, content.images, strict=True)
        for o in read_image.objects
    ]
    assert ours == [pytest.approx(a["bbox"], abs=1e-3) for a in coco["annotations"]]
