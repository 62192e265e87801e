"""COCO annotations: what is read, what is an error, what is counted."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.outlines import ROTATED
from retinanet_jax.data.data_errors import MAX_NAMES, Guard
from retinanet_jax.data.formats.coco import Categories, DataError, Report, read_annotations

WIDTH, HEIGHT = 40, 30


def content() -> dict:
    """Three images (the last without objects), categories with gaps in their ids."""
    return {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in ((7, "a.png"), (3, "sub/b.png"), (11, "grün 猫.png"))
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 20], "area": 150.5},
            {"id": 5, "image_id": 7, "category_id": 4, "bbox": [0, 0, 40, 30], "iscrowd": 1},
            {"id": 9, "image_id": 3, "category_id": 4, "bbox": [35, 25, 10, 10], "area": 3},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 4, "name": "cat"}],
    }


@pytest.fixture(scope="module")
def image_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    for entry in content()["images"]:
        data = cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
        (folder / entry["file_name"]).write_bytes(data)
    return folder


@pytest.fixture
def read(tmp_path, image_dir):
    def _read(data, on_error="strict"):
        path = tmp_path / "instances_train.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
        return read_annotations(path, image_dir, on_error)

    return _read


def test_ids_names_and_boxes_are_kept(read):
    annotations = read(content())
    assert annotations.categories == Categories(("dog", "cat"), (90, 4))
    assert [image.id for image in annotations.images] == [7, 3, 11]
    first, second, empty = annotations.images
    np.testing.assert_array_equal(first.boxes(), [[1, 2, 11, 22], [0, 0, 40, 30]])
    assert first.labels().tolist() == [0, 1] and first.crowd().tolist() == [False, True]
    assert [a.area for a in first.annotations] == [150.5, 1200.0]
    np.testing.assert_array_equal(second.boxes(), [[35, 25, 40, 30]])
    assert empty.boxes().shape == (0, 4) and empty.labels().dtype == np.int32


def test_what_was_changed_is_counted(read):
    report = read(content()).report
    assert report.counts == {"box partly outside, clipped": 1}  # a missing area is a default
    assert "annotation id 9" in report.summary()


def test_ground_truth_keeps_boxes_and_areas_as_given(read):
    truth = read(content()).ground_truth()
    assert [a["bbox"] for a in truth["annotations"]][-1] == [35, 25, 10, 10]
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1, 0]
    assert truth["categories"] == content()["categories"]
    assert len(truth["images"]) == 3


def test_categories_answer_both_ways():
    categories = Categories(("dog", "cat"), (90, 4))
    assert categories.num_classes == 2
    for label, category_id in enumerate(categories.ids):
        assert categories.label_of(category_id) == label
        assert categories.id_of(label) == category_id
    with pytest.raises(KeyError, match="category id 5"):
        categories.label_of(5)
    for label in (-1, 2):
        with pytest.raises(IndexError, match=f"label {label}"):
            categories.id_of(label)


def change(*path, to=None, drop=False):
    """A function that sets, or drops, one field of the annotations."""

    def apply(data):
        for key in path[:-1]:
            data = data[key]
        if drop:
            del data[path[-1]]
        else:
            data[path[-1]] = to

    return apply


# name: (mutation, reason, what the message names, images and objects left by `skip`)
SKIPPED = {
    "missing file": (change("images", 0, "file_name", to="no.png"), "missing image", "id 7", 2, 1),
    "folder": (change("images", 0, "file_name", to="sub"), "missing image", "id 7", 2, 1),
    "long name": (change("images", 0, "file_name", to="x" * 999), "missing image", "id 7", 2, 1),
    "absolute": (change("images", 0, "file_name", to="/etc/a.png"), "file_name", "id 7", 2, 1),
    "drive": (change("images", 0, "file_name", to="C:\\a.png"), "file_name", "id 7", 2, 1),
    "upwards": (change("images", 0, "file_name", to="sub/../a.png"), "file_name", "id 7", 2, 1),
    "backwards": (change("images", 0, "file_name", to="..\\a.png"), "file_name", "id 7", 2, 1),
    "nul": (change("images", 0, "file_name", to="a\0.png"), "file_name", "id 7", 2, 1),
    "surrogate": (change("images", 0, "file_name", to="\ud800.png"), "wrong type", "id 7", 2, 1),
    "no name": (change("images", 0, "file_name", drop=True), "missing field", "file_name", 2, 1),
    "windows": (change("images", 0, "file_name", to="b\\a.png"), "missing image", "neither", 2, 1),
    "exchanged": (
        lambda data: data["images"][0].update(width=HEIGHT, height=WIDTH),
        "image size disagrees",
        "swap height and width",
        2,
        1,
    ),
    "no image id": (change("images", 0, "id", drop=True), "missing field", r"images\[0\]", 2, 1),
    "other size": (change("images", 0, "width", to=30), "image size disagrees", "30 x 40", 2, 1),
    "size is a word": (change("images", 0, "width", to="wide"), "wrong type", "id 7", 2, 1),
    "one id": (change("images", 0, "id", to=3), "image id used twice", "id 3", 1, 0),
    "one file": (
        change("images", 1, "file_name", to="a.png"),
        "image file used twice",
        "id 3",
        2,
        2,
    ),
    "image is a list": (change("images", 0, to=[]), "entry", r"images\[0\]", 2, 1),
    "huge id": (change("images", 0, "id", to=2**63), "wrong type", "92233", 2, 1),
    "category": (change("annotations", 0, "category_id", to=1), "unknown category", "id 1", 3, 2),
    "boolean": (change("annotations", 0, "category_id", to=True), "wrong type", "id 1", 3, 2),
    "no category": (
        change("annotations", 0, "category_id", drop=True),
        "missing field",
        "category_id",
        3,
        2,
    ),
    "negative": (change("annotations", 0, "bbox", 2, to=-4), "box without area", "id 1", 3, 2),
    "flat": (change("annotations", 0, "bbox", 3, to=0), "box without area", "id 1", 3, 2),
    "outside": (change("annotations", 0, "bbox", 0, to=40), "box outside its image", "id 1", 3, 2),
    "above": (change("annotations", 0, "bbox", 1, to=-20), "box outside its image", "id 1", 3, 2),
    "string": (change("annotations", 0, "bbox", 0, to="left"), "bbox", "id 1", 3, 2),
    "nan": (change("annotations", 0, "bbox", 0, to=float("nan")), "bbox", "id 1", 3, 2),
    "infinite": (change("annotations", 0, "bbox", 2, to=float("inf")), "bbox", "id 1", 3, 2),
    "overflow": (change("annotations", 0, "bbox", 2, to=10**400), "bbox", "id 1", 3, 2),
    "three numbers": (change("annotations", 0, "bbox", to=[1, 2, 3]), "bbox", "id 1", 3, 2),
    "null": (change("annotations", 0, "bbox", to=None), "bbox", "id 1", 3, 2),
    "no bbox": (change("annotations", 0, "bbox", drop=True), "bbox", "id 1", 3, 2),
    "object twice": (
        change("annotations", 1, "id", to=1),
        "annotation id used twice",
        "id 1",
        3,
        2,
    ),
    "half an id": (
        change("annotations", 0, "id", to=1.5),
        "wrong type",
        r"s\[0\]: id is 1.5",
        3,
        2,
    ),
    "no such image": (change("annotations", 0, "image_id", to=8), "unknown image", "id 1", 3, 2),
    "area": (change("annotations", 0, "area", to="big"), "area", "id 1", 3, 2),
    "crowd": (change("annotations", 0, "iscrowd", to=2), "iscrowd", "id 1", 3, 2),
}

FATAL = {
    "no images": (change("images", drop=True), "'images'"),
    "no annotations": (change("annotations", drop=True), "'annotations'"),
    "no categories": (change("categories", drop=True), "'categories'"),
    "images is a dict": (change("images", to={}), "'images'"),
    "empty split": (change("images", to=[]), "has no image"),
    "no category": (change("categories", to=[]), "at least one category"),
    "category twice": (change("categories", 1, "id", to=90), "id 90 is used twice"),
    "name twice": (change("categories", 1, "name", to="dog"), "name 'dog' is used twice"),
    "id with two names": (
        lambda data: data["categories"].append({"id": 4, "name": "dog"}),
        "id 4 is used twice",
    ),
    "no name": (change("categories", 1, "name", drop=True), r"categories\[1\].*'name'"),
    "empty name": (change("categories", 1, "name", to=" "), "one line"),
    "two lines": (change("categories", 1, "name", to="a\nb"), "one line"),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_strict_stops_and_skip_counts(case, read):
    mutate, reason, named, images, objects = SKIPPED[case]
    data = content()
    mutate(data)
    with pytest.raises(DataError, match=named) as caught:
        read(data)
    assert caught.value.reason == reason
    assert "instances_train.json" in str(caught.value)
    annotations = read(data, "skip")
    assert len(annotations.images) == images
    assert sum(len(image.annotations) for image in annotations.images) == objects
    assert annotations.report.counts[reason]
    dropped = (len(data["images"]) - images) + (len(data["annotations"]) - objects)
    changed = annotations.report.counts["box partly outside, clipped"]
    assert annotations.report.total - changed == dropped


@pytest.mark.parametrize("on_error", ["strict", "skip"])
@pytest.mark.parametrize("case", FATAL)
def test_fatal_errors_stop_in_both_modes(case, on_error, read):
    mutate, named = FATAL[case]
    data = content()
    mutate(data)
    with pytest.raises(DataError, match=f"instances_train.json.*{named}"):
        read(data, on_error)


def test_errors_of_deeply_nested_values_are_short(read):
    """Lists nested about as deep as Python's own limit: the message must not be what fails."""
    text = json.dumps(content())
    for depth in range(850, 1000):
        with pytest.raises(DataError, match=r"instances_train\.json"):
            read(text.replace("[1, 2, 10, 20]", "[" * depth + "]" * depth))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"images": [', "\x00", "[" * 100_000, "9" * 5000]
)
def test_invalid_annotation_files_are_errors(text, read):
    with pytest.raises(DataError, match=r"instances_train\.json"):
        read(text, "skip")


def exif_image(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, exif=exif)


def test_a_release_is_read_as_stored(tmp_path):
    exif_image(tmp_path / "a.jpg", 6)
    image = {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    data = {**content(), "images": [image], "annotations": []}
    path = tmp_path / "instances_train.json"
    path.write_text(json.dumps(data))
    found = read_annotations(path, tmp_path)
    assert found.report.total == 0 and found.images[0].orientation == 1
    image["width"], image["height"] = HEIGHT, WIDTH
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"image id 1: .*is 40 x 30.*swap height and width"):
        read_annotations(path, tmp_path)


LENIENT = {
    "id as text": (change("images", 0, "id", to="7"), fields.TEXT_NUMBER),
    "reference as text": (change("annotations", 0, "image_id", to="7"), fields.TEXT_NUMBER),
    "category as text": (change("annotations", 0, "category_id", to="90"), fields.TEXT_NUMBER),
    "id as a decimal": (change("images", 0, "id", to=7.0), fields.DECIMAL_INTEGER),
    "bbox as text": (
        change("annotations", 0, "bbox", to=["1", 2, "10.00", 20]),
        fields.TEXT_NUMBER,
    ),
    "area as text": (change("annotations", 0, "area", to="150.5"), fields.TEXT_NUMBER),
    "no width": (
        change("images", 0, "width", drop=True),
        "no width or height, size of the file used",
    ),
    "no height": (change("images", 0, "height", to=0), "no width or height, size of the file used"),
    "null id": (change("annotations", 0, "id", to=None), None),
    "no id": (change("annotations", 0, "id", drop=True), None),
    "null area": (change("annotations", 1, "area", to=None), None),
    "category again": (
        lambda data: data["categories"].append({"id": 90, "name": "dog"}),
        "category listed again",
    ),
    "root of the same name": (
        lambda data: data["categories"].insert(0, {"id": 0, "name": "dog"}),
        "root category without boxes, left out",
    ),
    "root of all others": (
        lambda data: data.update(
            categories=[
                {"id": 0, "name": "pets", "supercategory": "none"},
                *({**c, "supercategory": "pets"} for c in data["categories"]),
            ]
        ),
        "root category without boxes, left out",
    ),
    "backslashes": (change("images", 1, "file_name", to="sub\\b.png"), "file name with \\ for /"),
    "polygon": (
        lambda data: data["annotations"][0].update(
            bbox=[], segmentation=[[1, 2, 11, 2, 11, 22], [3, 4, 5, 9, 4, 4]]
        ),
        "no bbox, bounding box of the polygon or mask used",
    ),
    "mask": (
        lambda data: data["annotations"][0].update(
            bbox=None, segmentation=mask_of(1, 2, 10, 20, encoded=False)
        ),
        "no bbox, bounding box of the polygon or mask used",
    ),
    "compressed mask": (
        lambda data: data["annotations"][0].update(
            bbox=[0, 0, 0, 0], segmentation=mask_of(1, 2, 10, 20, encoded=True)
        ),
        "no bbox, bounding box of the polygon or mask used",
    ),
}


def mask_of(x, y, width, height, *, encoded: bool) -> dict:
    """COCO's run lengths of a rectangle, column by column."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + height, x : x + width] = 1
    if encoded:
        found = run_lengths.encode(np.asfortranarray(mask))
        return {**found, "counts": found["counts"].decode()}
    flat = mask.T.reshape(-1)
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(edges).tolist()}


@pytest.mark.parametrize("case", LENIENT)
def test_what_has_one_meaning_is_read_and_counted(case, read):
    mutate, reason = LENIENT[case]
    data, expected = content(), read(content())
    mutate(data)
    found = read(data)
    assert found.categories == expected.categories
    for ours, theirs in zip(found.images, expected.images, strict=True):
        assert (ours.id, ours.height, ours.width) == (theirs.id, theirs.height, theirs.width)
        np.testing.assert_array_equal(ours.boxes(), theirs.boxes())
        np.testing.assert_array_equal(ours.labels(), theirs.labels())
        assert [a.area for a in ours.annotations] == [a.area for a in theirs.annotations]
    counts = found.report.counts - expected.report.counts
    assert set(counts) == ({reason} if reason else set())
    ids = [a.id for image in found.images for a in image.annotations]
    assert len(set(ids)) == len(ids)


def test_an_ignored_object_is_a_crowd(read):
    data = content()
    data["annotations"][0]["ignore"] = 1
    assert read(data).images[0].crowd().tolist() == [True, True]


@pytest.mark.parametrize("degrees", [90.0, 30, 217.5, -45.0, 450])
def test_a_rectangle_that_cvat_rotated_has_the_box_around_its_corners(read, degrees):
    data = content()
    first = data["annotations"][0]
    first.update(bbox=[10, 9, 12, 8], segmentation=[], attributes={"rotation": degrees})
    found = read(data)
    corners = cv2.boxPoints(((16, 13), (12, 8), degrees))  # turned about the centre
    wanted = [*corners.min(axis=0), *corners.max(axis=0)]
    np.testing.assert_allclose(found.images[0].boxes()[0], wanted, atol=1e-4)
    assert found.images[0].annotations[0].area == 150.5
    assert found.report.counts[ROTATED] == 1 and "annotation id 1" in found.report.summary()


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": {"rotation": 0.0}},
        {"attributes": {"rotation": 360.0}},
        {"attributes": {"rotation": "left"}},
        {"attributes": {"rotation": True}},
        {"attributes": ["rotation"]},
        # The box of an outline is that of the outline, whatever the attribute is about.
        {"attributes": {"rotation": 30.0}, "segmentation": [[1, 2, 11, 2, 11, 22, 1, 22]]},
    ],
)
def test_other_boxes_are_not_rotated(read, fields):
    data = content()
    data["annotations"][0].update(fields)
    found = read(data)
    np.testing.assert_array_equal(found.images[0].boxes()[0], [1, 2, 11, 22])
    assert ROTATED not in found.report.counts


def test_a_rotated_box_without_area_is_an_error(read):
    data = content()
    data["annotations"][0].update(bbox=[10, 10, -4, 20], attributes={"rotation": 45.0})
    with pytest.raises(DataError, match=r"annotation id 1: .*-4"):
        read(data)


def test_boxes_in_shares_of_the_image_are_errors(read):
    data = content()
    for entry in data["annotations"]:
        entry["bbox"] = [0.1, 0.2, 0.3, 0.4]
    with pytest.raises(
        DataError, match=r"(?s)has 3 errors.*in fractions of the image, not in pixels"
    ):
        read(data)
    found = read(data, "skip")
    assert found.report.counts == {"box in fractions of the image": 3}
    data["annotations"][1]["bbox"] = data["annotations"][2]["bbox"] = [1, 2, 3, 4]
    assert not read(data).report.counts["box in fractions of the image"]  # one may be that small


def test_corners_are_recognized(read):
    data = content()
    for entry in data["annotations"]:
        entry["bbox"] = [20, 15, 35, 28]
    assert "look like x1, y1, x2, y2" in read(data).report.summary()


def test_a_name_that_differs_in_case_or_unicode_form_is_shown(read, image_dir):
    for name, shown in (("A.png", "'a.png', which differs in upper"), ("gru\u0308n 猫.png", "NFC")):
        data = content()
        data["images"][0 if name == "A.png" else 2]["file_name"] = name
        with pytest.raises(DataError, match=rf"there is .*{shown}"):
            read(data)


def test_a_folder_name_too_long_for_the_file_system_is_a_missing_image(read):
    data = content()
    data["images"][0]["file_name"] = f"{'x' * 5000}/a.png"
    with pytest.raises(DataError, match=r"(?s)File name too long; there is .*a.png: leave x"):
        read(data)


def test_a_name_with_a_folder_too_many_is_shown(read, image_dir):
    data = content()
    data["images"][0]["file_name"] = "photos/2026/a.png"
    with pytest.raises(DataError, match=rf"there is {image_dir}/a.png: leave photos/2026/ out of"):
        read(data)


def test_utf_16_is_read(tmp_path, image_dir):
    path = tmp_path / "instances_train.json"
    for encoding in ("utf-16", "utf-16-le", "utf-8-sig"):
        path.write_text(json.dumps(content(), ensure_ascii=False), encoding=encoding)
        assert read_annotations(path, image_dir).images[2].file_name == "grün 猫.png"


def test_ids_from_zero_with_gaps_and_a_category_zero(read):
    data = content()
    data["categories"][0]["id"] = data["annotations"][0]["category_id"] = 0
    data["images"][0]["id"] = 0
    for entry in data["annotations"][:2]:
        entry["image_id"] = 0
    found = read(data)
    assert found.categories.ids == (0, 4) and found.images[0].id == 0
    assert found.images[0].labels().tolist() == [0, 1]


def test_a_split_of_which_nothing_is_left_stops(read):
    data = content()
    for image in data["images"]:
        image["width"] = 1
    with pytest.raises(DataError, match=r"none of 3 images can be used.*3 x image size disagrees"):
        read(data, "skip")


def test_byte_order_mark_is_read(read):
    assert len(read("\ufeff" + json.dumps(content())).images) == 3


def test_missing_file_and_folder(tmp_path, image_dir):
    with pytest.raises(DataError, match=r"none.json.*No such file"):
        read_annotations(tmp_path / "none.json", image_dir)
    with pytest.raises(DataError, match=r"nowhere.*is not a folder"):
        read_annotations(tmp_path / "none.json", tmp_path / "nowhere")


def test_unknown_on_error_says_what_to_write(read):
    with pytest.raises(ValueError, match=r"data\.on_error: 'never' is not one of strict, skip"):
        read(content(), "never")


def test_report_names_the_first_few_and_the_file_once():
    report = Report()
    assert report.notes("train") == ""
    for i in range(8):
        report.add("bbox", f"a.json: id {i}")
    assert report.summary() == "8 x bbox: a.json: id 0, id 1, id 2, id 3, id 4, ..."
    notes = report.notes("train")
    assert "train: 8 skipped or changed" in notes and "8 x bbox" in notes


def test_the_folder_of_a_report_ends_before_the_entry():
    report = Report()
    report.add("split left out", "/x/data.yaml: val: 'extra/images'")
    assert report.summary() == "in /x/\n1 x split left out: data.yaml: val: 'extra/images'"


def test_a_report_of_a_million_is_bounded():
    report = Report()
    for i in range(5000):
        report.add("bbox", f"a.json: id {i}")
    joined = Report.joined([report, report])
    assert joined.total == 10_000 and len(joined.names["bbox"]) == MAX_NAMES
    assert joined.summary().startswith("10,000 x bbox: a.json: id 0, id 1")
    again = Report.from_json(json.loads(json.dumps(joined.to_json())))
    assert (again.counts, again.names) == (joined.counts, joined.names)


def test_strict_lists_all_errors_at_once(read):
    data = content()
    data["images"][1]["file_name"] = "no.png"
    for entry in data["annotations"][:2]:
        entry["bbox"][2] = -1
    with pytest.raises(DataError) as caught:
        read(data)
    text = str(caught.value)
    assert "instances_train.json: has 3 errors; fix them, or set data.on_error=skip" in text
    for line in ("1 x missing image", "2 x box without area"):
        assert line in text
    assert "No such file" in text and "also " in text and "annotation id 5" in text
    assert read(data, "skip").report.total == 4


def test_strict_lists_thousands_of_errors_in_a_few_lines():
    guard = Guard("strict", Report())
    for i in range(10_000):
        with guard:
            raise DataError("bbox", "a.json", f"annotation id {i}", "is wrong", "write it")
    with pytest.raises(DataError, match=r"a\.json: has 10000 errors") as caught:
        guard.finish(Path("a.json"))
    assert len(str(caught.value)) < 500


def test_real_annotations_are_read_without_an_error(shared_dir):
    for name, split, images, objects, classes in (
        ("bccd_320", "train", 205, 2804, 3),
        ("bccd_320", "val", 87, 1137, 3),
        ("coco_sample", "train", 24, 256, 80),
        ("coco_sample", "val", 40, 391, 80),
    ):
        root = shared_dir / "data" / name
        path = root / "annotations" / f"instances_{split}.json"
        annotations = read_annotations(path, root / "images")
        assert len(annotations.images) == images
        assert sum(len(image.annotations) for image in annotations.images) == objects
        assert annotations.categories.num_classes == classes
        assert annotations.report.total == 0
