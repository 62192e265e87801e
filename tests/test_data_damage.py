"""Thousands of damaged annotation files: each is read, or is an error that names it.

Every file is read in both modes. What `skip` keeps and what it counts add up to the entries of the
file; `strict` raises exactly if `skip` left something out, and finds as many errors.
"""

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_settings import as_array_record

from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats import voc_official
from retinanet_jax.data.formats.coco import read_annotations
from retinanet_jax.data.store.array_record import TfdsSource, read_source_file

HEIGHT, WIDTH = 30, 40
# Counted, and kept all the same.
CHANGES = (
    "box partly outside, clipped",
    "size disagrees",
    "number written as text",
    "whole number written as a decimal",
    "no width or height, size of the file used",
    "category listed again",
    "root category without boxes",
    "file name with",
    "more than half",
)

TREE = {
    "info": {"year": 2017},
    "images": [
        {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for i, name in ((7, "a.png"), (3, "sub/b.png"), (11, "grün 猫.png"))
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 20], "area": 150.5},
        {"id": 5, "image_id": 7, "category_id": 4, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        {"id": 9, "image_id": 3, "category_id": 4, "bbox": [35, 25, 10, 10], "area": 3},
        {"id": 12, "image_id": 11, "category_id": 90, "bbox": [1.5, 2.25, 1e-2, 3], "area": 0},
    ],
    "categories": [{"id": 90, "name": "dog", "supercategory": ""}, {"id": 4, "name": "cat"}],
}


def nested(depth: int) -> list:
    """[[[...]]]"""
    tree: list = []
    for _ in range(depth):
        tree = [tree]
    return tree


VALUES = [
    None, True, False, 0, -1, 1, 3, 7, 90, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 0.5, 7.0,
    -0.0, 1e-9, 1e300, float("nan"), float("inf"), -float("inf"), "", " ", "7", "a.png", "./a.png",
    "../a.png", "/etc/passwd", "C:\\a.png", "sub\\b.png", "sub", ".", "\0", "a\nb", "\ud800", "é",
    "x" * 5000, [], [[]], {}, {"id": 7}, [1, 2, 3, 4], [1, 2, 3], ["1", "2", "3", "4"], nested(60),
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder whose annotations are written anew for each case."""
    root = tmp_path_factory.mktemp("damage")
    (root / "annotations").mkdir()
    (root / "images/sub").mkdir(parents=True)
    for entry in TREE["images"]:
        pixels = np.full((HEIGHT, WIDTH, 3), 99, np.uint8)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        (root / "images" / entry["file_name"]).write_bytes(data)
    return root


def nodes(tree, parents=()) -> Iterator[tuple]:
    """(container, key) of every node below a tree."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from nodes(value)


def mutate(rng: np.random.Generator, tree: dict) -> None:
    """Deletes, doubles, replaces or copies nodes of a tree, one to four times."""
    for _ in range(rng.integers(1, 5)):
        everywhere = list(nodes(tree))
        if not everywhere:
            return
        container, key = everywhere[rng.integers(len(everywhere))]
        other, place = everywhere[rng.integers(len(everywhere))]
        kind = rng.integers(4)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == 2:
            container[key] = copy.deepcopy(other[place])
        else:
            container[key] = VALUES[rng.integers(len(VALUES))]


def damage(rng: np.random.Generator, data: bytes) -> bytes:
    """Cuts, flips, inserts or splices bytes, one to three times."""
    data = bytearray(data)
    inserted = [
        b"9" * 5000,
        b"[" * 5000,
        b'{"":' * 3000,
        b"\xff\xfe",
        b"NaN",
        b"\\ud800",
        b'"',
        b"\0",
    ]
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(data) + 1)), rng.choice(5, p=(0.1, 0.5, 0.1, 0.1, 0.2))
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[at:at] = inserted[rng.integers(len(inserted))]
        elif kind == 3:
            start = int(rng.integers(len(data) + 1))
            data[at:at] = data[start : start + int(rng.integers(200))]
        else:
            del data[at : at + int(rng.integers(1, 30))]
    return bytes(data)


def errors(counts: dict[str, int]) -> int:
    """How many entries were left out."""
    return sum(count for reason, count in counts.items() if not reason.startswith(CHANGES))


def check_strict(read, expected: int) -> None:
    """`strict` refuses what `skip` found `expected` errors in, and finds as many itself."""
    if not expected:
        read("strict")
        return
    with pytest.raises(DataError) as caught:
        read("strict")
    listed = re.search(r"has (\d+) errors", str(caught.value))
    assert (int(listed.group(1)) if listed else 1) == expected


def check_annotations(root: Path, content: bytes):
    """Reads annotations in both modes; the annotations that `skip` leaves, None if refused."""
    path = root / "annotations/instances_train.json"
    path.write_bytes(content)

    def read(on_error):
        return read_annotations(path, root / "images", on_error)

    try:
        found = read("skip")
    except DataError as error:
        assert str(path) in str(error) and len(str(error)) < 6000
        with pytest.raises(DataError, match=re.escape(str(path))):
            read("strict")
        return None
    tree = json.loads(content)
    kept = len(found.images) + sum(len(image.annotations) for image in found.images)
    left_out = errors(found.report.counts)
    assert kept + left_out == len(tree["images"]) + len(tree["annotations"])
    check_strict(read, left_out - found.report.counts["object of a skipped image"])
    image_ids = [image.id for image in found.images]
    object_ids = [a.id for image in found.images for a in image.annotations]
    assert len(set(image_ids)) == len(image_ids) > 0 and len(set(object_ids)) == len(object_ids)
    for image in found.images:
        assert (image.height, image.width) == (HEIGHT, WIDTH)
        assert image.path.resolve().is_relative_to(root / "images")
        boxes, labels = image.boxes(), image.labels()
        assert np.isfinite(boxes).all() and (boxes >= 0).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes <= [WIDTH, HEIGHT] * 2).all()
        assert ((labels >= 0) & (labels < found.categories.num_classes)).all()
    json.dumps(found.ground_truth(), allow_nan=False)
    return found


def test_damaged_trees(root):
    rng = np.random.default_rng(0)
    read, whole = 0, 0
    for _ in range(600):
        tree = copy.deepcopy(TREE)
        mutate(rng, tree)
        found = check_annotations(root, json.dumps(tree).encode())
        read += found is not None
        whole += found is not None and not errors(found.report.counts)
    assert 40 < whole < read < 560  # all outcomes were seen


def test_damaged_bytes(root):
    rng = np.random.default_rng(1)
    content = json.dumps(TREE, ensure_ascii=False).encode()
    read = sum(check_annotations(root, damage(rng, content)) is not None for _ in range(800))
    assert 10 < read < 790


def test_what_is_left_of_damaged_trees_can_be_prepared(root, tmp_path):
    rng = np.random.default_rng(2)
    for number in range(30):
        tree = copy.deepcopy(TREE)
        mutate(rng, tree)
        found = check_annotations(root, json.dumps(tree).encode())
        if found is None:
            continue
        folder = as_array_record(root, "train", tmp_path / str(number), "skip")
        source = TfdsSource(folder, "train", tmp_path)
        assert read_source_file(folder).categories == found.categories
        images = {image.id: image for image in found.images}
        for i in range(len(source)):
            example = source[i]
            image = images.pop(example.image_id)
            np.testing.assert_allclose(example.boxes, image.boxes(), atol=1e-4)
            np.testing.assert_array_equal(example.labels, image.labels())
            assert (example.boxes[:, 2:] > example.boxes[:, :2]).all()
        assert not images


XML = """<annotation><folder>VOC2007</folder><size><width>40</width><height>30</height></size>
<object><name>dog</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>
<object><name>Cat</name><bndbox><xmin>3.5</xmin><ymin>2</ymin><xmax>9.25</xmax><ymax>20</ymax>
</bndbox></object></annotation>"""
TEXTS = [
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "7",
    "2.5",
    "dog",
    "yes",
    "x" * 5000,
    "9" * 5000,
    "é",
]


def mutate_xml(rng: np.random.Generator, root: ElementTree.Element) -> None:
    """Deletes, doubles, renames, moves or refills elements, one to four times."""
    for _ in range(rng.integers(1, 5)):
        pairs = [(parent, child) for parent in root.iter() for child in parent]
        if not pairs:
            return
        parent, child = pairs[rng.integers(len(pairs))]
        other = pairs[rng.integers(len(pairs))][1]
        kind = rng.integers(5)
        if kind == 0:
            parent.remove(child)
        elif kind == 1:
            parent.append(copy.deepcopy(child))
        elif kind == 2:
            child.tag = other.tag
        elif kind == 3:
            child.append(copy.deepcopy(other))
        else:
            child.text = TEXTS[rng.integers(len(TEXTS))]


def check_objects(path: Path, content: bytes) -> int | None:
    """Reads objects in both modes; their number, None if the file was refused."""
    path.write_bytes(content)

    def read(on_error):
        guard = Guard(on_error, Report())
        objects = voc_official.read_objects(path, (HEIGHT, WIDTH), guard)
        guard.finish(path)
        return objects, guard.report.counts

    try:
        objects, counts = read("skip")
    except DataError as error:
        assert str(path) in str(error)
        with pytest.raises(DataError, match=re.escape(str(path))):
            read("strict")
        return None
    check_strict(read, errors(counts))
    assert len(objects) + errors(counts) == len(ElementTree.fromstring(content).findall("object"))
    for found in objects:
        x1, y1, x2, y2 = np.clip(found.corners, 0, [WIDTH, HEIGHT] * 2)
        assert np.isfinite(found.corners).all() and x1 <= x2 and y1 <= y2
        assert 0 <= found.label < 20
    return len(objects)


def test_damaged_xml_trees(tmp_path):
    rng = np.random.default_rng(3)
    counts = []
    for _ in range(600):
        root = ElementTree.fromstring(XML)
        mutate_xml(rng, root)
        counts.append(check_objects(tmp_path / "000001.xml", ElementTree.tostring(root)))
    assert {0, 1, 2} <= set(counts)


def test_damaged_xml_bytes(tmp_path):
    rng = np.random.default_rng(4)
    data = XML.encode()
    counts = [check_objects(tmp_path / "000001.xml", damage(rng, data)) for _ in range(400)]
    assert {None, 1, 2} <= set(counts)
