"""Marks of ignored objects: their names and values, and that all layouts read them in one way."""

import csv
import json

import pytest
from data_settings import data_settings
from layout_writers import WRITERS, Annotated, Box, write_image

from retinanet_jax.data.annotations.ignore_marks import is_ignored, is_mark
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset

BOXES = [(4, 6, 20, 12), (30, 8, 10, 11), (2, 30, 25, 13), (40, 24, 20, 20)]
IMAGE = Annotated("a.png", 64, 48, tuple(Box("cat", *box) for box in BOXES))
IGNORED = [True, False, False, True]  # those of MARKS

# Of each layout: the file, what it has for each object, and in its place with {name} {value}.
TEXTS = {
    "coco": ("annotations/instances_train.json", '"iscrowd": 0', '"{name}": {json}'),
    "coco_roboflow": ("train/_annotations.coco.json", '"iscrowd": 0', '"attributes": {dict}'),
    "voc_beside": ("train/a.xml", "<difficult>0</difficult>", "<{name}>{value}</{name}>"),
    "voc": (
        "Annotations/a.xml",
        "<difficult>0</difficult>",
        "<difficult>0</difficult><attributes><attribute><name>{name}</name><value>{value}</value>"
        "</attribute></attributes>",
    ),
    "labelme": ("train/a.json", '"description": ""', '"{name}": {json}'),
    "labelme flags": (
        "train/a.json",
        '"description": "", "shape_type": "rectangle", "flags": {}',
        '"shape_type": "rectangle", "flags": {dict}',
    ),
    "labelme attributes": ("train/a.json", '"description": ""', '"attributes": {dict}'),
    "cvat": ("annotations.xml", "></box>", '><attribute name="{name}">{value}</attribute></box>'),
    "cvat_video": (
        "annotations.xml",
        'z_order="0"></box>',
        'z_order="0"><attribute name="{name}">{value}</attribute></box>',
    ),
    "bdd100k": ("labels/det_20/det_train.json", '{"occluded": false}', "{dict}"),
    "datumaro": ("annotations/train.json", '"attributes": {}, "g', '"attributes": {dict}, "g'),
    "via": ("train/via_region_data.json", '"class": "cat"', '"class": "cat", "{name}": "{value}"'),
    "supervisely": (
        "train/ann/a.png.json",
        '"rectangle", "tags": []',
        '"rectangle", "tags": [{{"name": "{name}", "value": "{value}"}}]',
    ),
}
MARKS = [
    ({"difficult": True, "is_crowd": 0}, {"occluded": True}, {"truncated": 1}, {"ignored": "yes"}),
    ({"crowd": 1}, {"crowd": 0}, {"ignore": False}, {"is_difficult": "True"}),
    ({"ignore": 1}, {"iscrowd": "false"}, {"difficult_to_see": 1}, {"invalid": True}),
]


def marked(text: str, before: str, after: str, marks) -> str:
    """The text of a file with a mark for each object, in turn."""
    parts = text.split(before)
    assert len(parts) == len(BOXES) + 1
    for number, mark in enumerate(marks):
        name, value = next(iter(mark.items()))
        values = {"name": name, "value": value, "json": json.dumps(value)}
        parts[number] += after.format(**values, dict=json.dumps(mark))
    return "".join(parts)


def objects(root, tmp_path) -> list[tuple]:
    """(x, y, width, height) and whether it is ignored, by folder to ground truth."""
    settings = data_settings("folder", root, tmp_path / "cache", eval_split="train")
    dataset = load_dataset(settings, "train")
    truth = dataset.ground_truth()
    assert [c["name"] for c in truth["categories"]] == ["cat"]
    return sorted((*a["bbox"], a["iscrowd"]) for a in truth["annotations"])


def wanted() -> list[tuple]:
    return sorted((*box, int(crowd)) for box, crowd in zip(BOXES, IGNORED, strict=True))


@pytest.mark.parametrize("marks", MARKS, ids=range(len(MARKS)))
@pytest.mark.parametrize("name", TEXTS)
def test_marks_of_a_layout(tmp_path, name, marks):
    root = tmp_path / "data"
    WRITERS[name.partition(" ")[0]](root, {"train": [IMAGE]})
    place, before, after = TEXTS[name]
    path = root / place
    path.write_text(marked(path.read_text(encoding="utf-8"), before, after, marks))
    assert objects(root, tmp_path) == wanted()


@pytest.mark.parametrize("column", ["ignore", "is_difficult", "IsCrowd", "Group of", "ignored"])
def test_marks_of_a_table(tmp_path, column):
    root = tmp_path / "data"
    write_image(root, IMAGE)
    values = ["1", "", "0.0", "True"]
    rows = [["a.png", "cat", *box, v, 1] for box, v in zip(BOXES, values, strict=True)]
    header = ["filename", "class", "x", "y", "width", "height", column, "occluded"]
    with (root / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    assert objects(root, tmp_path) == wanted()
    with (root / "train.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["a.png", "cat", *BOXES[0], "maybe", 0])
    wrong = rf"train\.csv: line 6: {column} is 'maybe'; write 0 or 1, or rename it"
    with pytest.raises(DataError, match=wrong):
        objects(root, tmp_path)


@pytest.mark.parametrize("marks", MARKS, ids=range(len(MARKS)))
@pytest.mark.parametrize("form", ["list", "lists", "entry"])
def test_marks_of_an_imagefolder(tmp_path, marks, form):
    root = tmp_path / "data"
    write_image(root, IMAGE)
    entries = [{"bbox": b, "label": "cat", **m} for b, m in zip(BOXES, marks, strict=True)]
    keys = dict.fromkeys(key for entry in entries for key in entry)
    lists = {key: [entry.get(key) for entry in entries] for key in keys}
    line = lists if form == "entry" else {"objects": entries if form == "list" else lists}
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", **line}))
    assert objects(root, tmp_path) == wanted()


@pytest.mark.parametrize(
    "name", ["difficult", "is_difficult", "isDifficult", "iscrowd", "Is Crowd", "IsGroupOf",
             "group-of", "ignore", "ignored", "is_ignored", "invalid"]
)  # fmt: skip
def test_names_of_marks(name):
    assert is_mark(name) and is_ignored({"a": 1, name: True}, "a.json", "")


@pytest.mark.parametrize(
    "name", ["occluded", "truncated", "difficulty", "crowded", "ignore_reason", "is", "", "valid"]
)
def test_other_names(name):
    assert not is_mark(name) and not is_ignored({name: True}, "a.json", "")


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", "1.0", "true", "TRUE", " yes ", "y", "T"])
def test_values_that_mark(value):
    assert is_ignored({"crowd": value, "difficult": 0}, "a.json", "")


@pytest.mark.parametrize(
    "value",
    [
        *(False, 0, 0.0, -1, None, float("nan"), "", "0", "0.0", "-1", "false", "F", "no", "n"),
        *("None", "NaN", "N/A", "null", "Unspecified"),
    ],
)
def test_values_that_do_not_mark(value):
    assert not is_ignored({"crowd": value}, "a.json", "")


@pytest.mark.parametrize("value", [2, 0.5, "hard", [1], {"a": 1}])
def test_other_values_are_an_error_that_names_the_field(value):
    with pytest.raises(DataError, match=r"a\.json: object 3: crowd is .*; write 0 or 1, or rename"):
        is_ignored({"difficult": True, "crowd": value}, "a.json", "object 3")


@pytest.mark.parametrize("entry", [None, [], "difficult", 1])
def test_no_mapping_has_no_marks(entry):
    assert not is_ignored(entry, "a.json", "")
