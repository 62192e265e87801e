"""Pascal VOC: a small devkit made of real photographs, prepared, read and scored."""

import json
import shutil
import types
from pathlib import Path
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet_jax.data import voc, voc_xml
from retinanet_jax.data.class_names import COCO_CATEGORIES, VOC_CATEGORIES
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.report import DataError, Guard, Report
from retinanet_jax.data.tfds_bridge import make_builder
from retinanet_jax.metrics.voc import voc_average_precision

# COCO's names of VOC's classes.
IN_VOC = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


def config(root, cache_dir) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        name="voc", root=str(root), cache_dir=str(cache_dir), train_split="train",
        eval_split="test", annotations="", on_error="strict",
    )  # fmt: skip


def object_xml(name, corners, difficult=0, pose="Left") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return (
        f"<object><name>{escape(name)}</name><pose>{pose}</pose><truncated>1</truncated>"
        f"<difficult>{difficult}</difficult><bndbox>{box}</bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    )


def annotation_xml(size, objects) -> str:
    height, width = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"{''.join(objects)}</annotation>"
    )


def write_year(devkit: Path, year: str, image_sets: dict[str, dict[str, tuple]]) -> None:
    """image_sets: {set: {name: (path of the photograph, size, objects' XML)}}."""
    folder = devkit / f"VOC{year}"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for image_set, images in image_sets.items():
        (folder / f"ImageSets/Main/{image_set}.txt").write_text("\n".join(images) + "\n")
        for name, (photograph, size, objects) in images.items():
            shutil.copy(photograph, folder / f"JPEGImages/{name}.jpg")
            (folder / f"Annotations/{name}.xml").write_text(annotation_xml(size, objects))


def photographs(root: Path) -> list[tuple]:
    """(path, size, objects' XML) of COCO's photographs, VOC's classes only, crowds difficult."""
    content = json.loads((root / "annotations/instances_val.json").read_text())
    found = []
    for image in content["images"]:
        objects = []
        for a in content["annotations"]:
            name = COCO_CATEGORIES.names[COCO_CATEGORIES.ids.index(a["category_id"])]
            name = IN_VOC.get(name, name)
            if a["image_id"] == image["id"] and name in VOC_CATEGORIES.names:
                x, y, w, h = a["bbox"]
                corners = int(x) + 1, int(y) + 1, int(x + w), int(y + h)
                objects.append(object_xml(name, corners, difficult=a["iscrowd"]))
        size = image["height"], image["width"]
        found.append((root / "images" / image["file_name"], size, objects))
    return found


@pytest.fixture(scope="module")
def devkit(shared_dir, tmp_path_factory):
    """6 + 5 photographs to train on, 29 to test on, some without objects."""
    devkit = tmp_path_factory.mktemp("voc") / "VOCdevkit"
    rows = photographs(shared_dir / "data/coco_sample")
    old = {f"{i:06d}": row for i, row in enumerate(rows[:6], 1)}
    new = {f"2008_{i:06d}": row for i, row in enumerate(rows[6:11], 1)}
    test = {f"{i:06d}": row for i, row in enumerate(rows[11:], 100)}
    write_year(devkit, "2007", {"trainval": old, "test": test})
    write_year(devkit, "2012", {"trainval": new})
    return devkit


@pytest.fixture(scope="module")
def data_dir(devkit, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    folder, report = voc.prepare_voc(devkit.parent, data_dir, "strict")
    assert folder == data_dir / "voc/0712/1.0.0" and report.total == 0
    return data_dir


def test_prepared_records_are_what_the_files_say(data_dir, devkit, tmp_path):
    train = load_dataset(config(data_dir, tmp_path), "train")
    test = load_dataset(config(data_dir, tmp_path), "test")
    assert (len(train.source), len(test.source)) == (11, 29)
    assert train.categories.names == VOC_CATEGORIES.names
    ids = {train.source.image_id(i) for i in range(11)}
    assert ids == {*range(1, 7), *range(2008000001, 2008000006)}
    for i in range(29):
        example = test.source[i]
        name = f"{example.image_id:06d}"
        path = devkit / f"VOC2007/Annotations/{name}.xml"
        size = test.source.image_size(i)
        assert example.image.shape[:2] == size
        objects = voc_xml.read_objects(path, size, Guard("strict", Report()))
        corners = np.array([o.corners for o in objects]).reshape(-1, 4)
        # VOC's first pixel is 1: it begins at position 0.
        np.testing.assert_allclose(example.boxes, corners - [1, 1, 0, 0], atol=1e-3)
        assert example.labels.tolist() == [o.label for o in objects]
        assert example.crowd.tolist() == [o.difficult for o in objects]
        sides = example.boxes[:, 2:] - example.boxes[:, :2]
        np.testing.assert_allclose(example.areas, sides.prod(1), rtol=1e-6)


def test_round_trip_scores_one(data_dir, tmp_path):
    dataset = load_dataset(config(data_dir, tmp_path), "test")
    truth = dataset.ground_truth()
    assert len(truth["images"]) == 29
    assert sum(a["difficult"] for a in truth["annotations"]) > 0
    objects = voc.voc_objects(truth, dataset.categories)
    detections, order = [], []
    for i in range(29):
        example = dataset.source[i]
        easy = ~example.crowd
        order.append(example.image_id)
        detections.append((example.boxes[easy], np.ones(easy.sum()), example.labels[easy]))
    result = voc_average_precision(
        [objects[image_id] for image_id in order],
        detections,
        20,
        inclusive_corners=False,
        names=dataset.categories.names,
    )
    assert result["AP_11point"] == result["AP_allpoint"] == 1.0
    occurring = {a["category_id"] for a in truth["annotations"] if not a["difficult"]}
    found = [p for p in result["per_class_allpoint"].values() if not np.isnan(p)]
    assert found == [1.0] * len(occurring) and len(occurring) >= 5


def test_slices_restrict_the_ground_truth(data_dir, tmp_path):
    dataset = load_dataset(config(data_dir, tmp_path), "test[:7]")
    ids = {dataset.source.image_id(i) for i in range(7)}
    assert {image["id"] for image in dataset.ground_truth()["images"]} == ids


def test_data_prepared_by_tfds_are_read_as_they_are(devkit, data_dir, tmp_path):
    """TFDS has a data set for each year, with trainval cut in train and validation."""
    guard = Guard("strict", Report())
    elsewhere = tmp_path / "elsewhere"
    parts = {
        ("2007", "train"): ("trainval", slice(0, 4)),
        ("2007", "validation"): ("trainval", slice(4, None)),
        ("2007", "test"): ("test", slice(None)),
        ("2012", "train"): ("trainval", slice(0, 3)),
        ("2012", "validation"): ("trainval", slice(3, None)),
    }
    for year in ("2007", "2012"):
        examples = {}
        for (of_year, split), (image_set, part) in parts.items():
            if of_year == year:
                images = voc_xml.read_image_set(devkit / f"VOC{year}", image_set, guard)
                examples[split] = voc.voc_examples(dict(list(images.items())[part]), guard)
        builder = make_builder("voc", year, "5.0.0", voc.voc_features(), examples, "VOC")
        voc.write_tfds(elsewhere, builder)
    ours = load_dataset(config(data_dir, tmp_path), "test")
    theirs = load_dataset(config(elsewhere, tmp_path), "test")
    assert ours.ground_truth() == theirs.ground_truth()
    train = load_dataset(config(elsewhere, tmp_path), "train")
    assert len(train.source) == 6 + 5
    sizes = [train.source.image_size(i) for i in range(11)]
    assert sizes == [train.source[i].image.shape[:2] for i in range(11)]
    with pytest.raises(IndexError):
        train.source[11]


def test_missing_data_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"voc/0712.*prepare_data\.py --dataset=voc"):
        load_dataset(config(tmp_path, tmp_path), "test")


@pytest.fixture
def small(tmp_path):
    """A devkit of one year's form: one grey picture of 40 x 30, with one dog."""
    photograph = tmp_path / "grey.jpg"
    photograph.write_bytes(cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))[1].tobytes())
    objects = [object_xml("dog", (1, 1, 40, 30)), object_xml("cat", (5, 6, 5, 6))]
    devkit = tmp_path / "devkit"
    write_year(devkit, "2007", {"test": {"000001": (photograph, (30, 40), objects)}})
    return devkit / "VOC2007"


def read(folder, on_error="strict"):
    report = Report()
    images = voc_xml.read_image_set(folder, "test", Guard(on_error, report))
    return next(iter(images.values())), report


def test_a_box_of_one_pixel_and_one_of_the_whole_image(small):
    objects, report = read(small)
    assert [o.corners for o in objects] == [(1, 1, 40, 30), (5, 6, 5, 6)]
    assert [(o.pose, o.truncated, o.difficult) for o in objects] == [("left", True, False)] * 2
    assert report.total == 0


@pytest.mark.parametrize(
    "old, new, reason",
    [
        ("<name>dog</name>", "<name>unicorn</name>", "unknown category"),
        ("<name>dog</name>", "", "unknown category"),
        ("<xmin>1</xmin><ymin>1", "<xmin>41</xmin><ymin>1", "box without area"),
        ("<xmax>40</xmax>", "<xmax>0</xmax>", "box without area"),
        ("<xmax>40</xmax>", "<xmax>nan</xmax>", "box without area"),
        ("<xmax>40</xmax>", "<xmax>wide</xmax>", "bndbox"),
        ("<xmax>40</xmax>", "", "bndbox"),
    ],
)
def test_a_broken_object_stops_or_is_counted(small, old, new, reason):
    path = small / "Annotations/000001.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=r"000001\.xml: object\[0\]") as caught:
        read(small)
    assert caught.value.reason == reason
    objects, report = read(small, "skip")
    assert len(objects) == 1 and len(report.counts[reason]) == 1


@pytest.mark.parametrize("damage", ["annotation", "xml", "image", "list", "truncated"])
def test_broken_files_are_named(small, damage):
    target = {
        "annotation": small / "Annotations/000001.xml",
        "xml": small / "Annotations/000001.xml",
        "image": small / "JPEGImages/000001.jpg",
        "list": small / "ImageSets/Main/test.txt",
        "truncated": small / "JPEGImages/000001.jpg",
    }[damage]
    if damage in ("xml", "truncated"):
        target.write_bytes(target.read_bytes()[:-30])
    else:
        target.unlink()
    with pytest.raises(DataError, match=target.name):
        images = voc_xml.read_image_set(small, "test", Guard("strict", Report()))
        list(voc.voc_examples(images, Guard("strict", Report())))


def test_what_is_changed_is_counted(small):
    path = small / "Annotations/000001.xml"
    text = path.read_text().replace("<width>40", "<width>41").replace("<xmax>40", "<xmax>44")
    path.write_text(text)
    _, report = read(small)
    assert {r: len(n) for r, n in report.counts.items()} == {
        "size disagrees, the file's taken": 1,
        "box partly outside, clipped": 1,
    }


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_changed_byte_is_valid_or_a_data_error(small, data):
    text = annotation_xml((30, 40), [object_xml("dog", (1, 1, 40, 30))]).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    cut = data.draw(st.integers(0, 8))
    path = small / "changed.xml"
    path.write_bytes(text[:at] + data.draw(st.binary(max_size=3)) + text[at + cut :])
    try:
        objects = voc_xml.read_objects(path, (30, 40), Guard("skip", Report()))
    except DataError as error:
        assert "changed.xml" in str(error)
        return
    assert len(objects) <= 1
