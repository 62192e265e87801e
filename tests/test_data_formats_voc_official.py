"""Pascal VOC: a small devkit made of real photographs, prepared, read and scored."""

import json
import shutil
import types
from pathlib import Path
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest
from data_settings import data_settings

from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES, VOC_CATEGORIES
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import voc_official
from retinanet_jax.data.store import voc_release as voc
from retinanet_jax.data.store.array_record import read_source_file
from retinanet_jax.data.store.voc_source import voc_objects
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


def config(root, cache_dir, name="voc") -> types.SimpleNamespace:
    return data_settings(name, root, cache_dir, eval_split="test")


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
    """4 + 2 and 3 + 2 photographs to train on, 29 to test on, some without objects."""
    devkit = tmp_path_factory.mktemp("voc") / "VOCdevkit"
    rows = photographs(shared_dir / "data/coco_sample")
    old = {f"{i:06d}": row for i, row in enumerate(rows[:4], 1)}
    old_val = {f"{i:06d}": row for i, row in enumerate(rows[4:6], 5)}
    new = {f"2008_{i:06d}": row for i, row in enumerate(rows[6:9], 1)}
    new_val = {f"2008_{i:06d}": row for i, row in enumerate(rows[9:11], 4)}
    test = {f"{i:06d}": row for i, row in enumerate(rows[11:], 100)}
    write_year(devkit, "2007", {"train": old, "val": old_val, "test": test})
    write_year(devkit, "2012", {"train": new, "val": new_val})
    return devkit


@pytest.fixture(scope="module")
def data_dir(devkit, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    for year, root in (("2007", devkit.parent), ("2012", devkit)):
        folder = voc.prepare_voc(year, root, data_dir, "strict")
        assert folder == data_dir / f"voc/{year}/5.0.0"
        assert read_source_file(folder).report.total == 0
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
        objects = voc_official.read_objects(path, size, Guard("strict", Report()))
        corners = np.array([o.corners for o in objects]).reshape(-1, 4)
        # VOC's first pixel is 1: it begins at position 0.
        np.testing.assert_allclose(example.boxes, corners - [1, 1, 0, 0], atol=1e-3)
        assert example.labels.tolist() == [o.label for o in objects]
        assert example.crowd.tolist() == [o.difficult for o in objects]
        sides = example.boxes[:, 2:] - example.boxes[:, :2]
        np.testing.assert_allclose(example.areas, sides.prod(1), rtol=1e-6)
        annotated = test.source.annotated(i)
        for ours, theirs in zip(annotated[:4], example[1:5], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert annotated.size == size


def test_round_trip_scores_one(data_dir, tmp_path):
    dataset = load_dataset(config(data_dir, tmp_path), "test")
    truth = dataset.ground_truth()
    assert len(truth["images"]) == 29
    assert sum(a["difficult"] for a in truth["annotations"]) > 0
    objects = voc_objects(truth, dataset.categories)
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


def test_years_and_splits_by_name(data_dir, tmp_path):
    """VOC's trainval is TFDS's train and validation; train of 07+12 is both trainvals."""
    ids = {}
    for name, split in (
        ("voc", "train"),
        ("voc2007", "train"),
        ("voc2007", "validation"),
        ("voc2007", "trainval"),
        ("voc2007", "test"),
        ("voc2012", "trainval"),
    ):
        source = load_dataset(config(data_dir, tmp_path, name), split).source
        ids[name, split] = [source.image_id(i) for i in range(len(source))]
        assert ids[name, split] == [source[i].image_id for i in range(len(source))]
    assert set(ids["voc2007", "train"]) == {1, 2, 3, 4}
    assert set(ids["voc2007", "validation"]) == {5, 6}
    assert ids["voc2007", "trainval"] == ids["voc2007", "train"] + ids["voc2007", "validation"]
    assert ids["voc", "train"] == ids["voc2007", "trainval"] + ids["voc2012", "trainval"]
    assert len(ids["voc2012", "trainval"]) == 5 and len(ids["voc2007", "test"]) == 29
    with pytest.raises(DataError, match="voc2012: has no split 'test'; use one of train, "):
        load_dataset(config(data_dir, tmp_path, "voc2012"), "test")


def test_the_folder_of_one_year_is_data_enough_for_it(data_dir, tmp_path):
    folder = data_dir / "voc/2007/5.0.0"
    assert len(load_dataset(config(folder, tmp_path), "test").source) == 29
    assert len(load_dataset(config(folder, tmp_path, "voc2007"), "trainval").source) == 6
    with pytest.raises(DataError, match="is 2007, but voc train needs voc/2012"):
        load_dataset(config(folder, tmp_path), "train")


def test_records_without_an_index_beside_them_are_read_once(data_dir, tmp_path):
    folder = tmp_path / "voc/2007/5.0.0"
    shutil.copytree(data_dir / "voc/2007/5.0.0", folder)
    ours = load_dataset(config(data_dir, tmp_path), "test").ground_truth()
    (folder / "index_test.npz").unlink()
    assert load_dataset(config(tmp_path, tmp_path / "cache"), "test").ground_truth() == ours
    assert len(list((tmp_path / "cache/index").iterdir())) == 1


def test_missing_data_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"voc/2007.*prepare --dataset=voc"):
        load_dataset(config(tmp_path, tmp_path), "test")


@pytest.fixture
def small(tmp_path):
    """A devkit of one year's form: one grey image of 40 x 30, with one dog."""
    photograph = tmp_path / "grey.jpg"
    photograph.write_bytes(cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))[1].tobytes())
    objects = [object_xml("dog", (1, 1, 40, 30)), object_xml("cat", (5, 6, 5, 6))]
    devkit = tmp_path / "devkit"
    write_year(devkit, "2007", {"test": {"000001": (photograph, (30, 40), objects)}})
    return devkit / "VOC2007"


def read(folder, on_error="strict"):
    report = Report()
    image_set = folder / "ImageSets/Main/test.txt"
    images = voc_official.read_image_set(image_set, Guard(on_error, report))
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
        ("<truncated>1<", "<truncated>yes<", "truncated"),
        ("<difficult>0<", "<difficult>2<", "difficult"),
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
    assert len(objects) == 1 and report.counts[reason] == 1


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
        image_set = small / "ImageSets/Main/test.txt"
        images = voc_official.read_image_set(image_set, Guard("strict", Report()))
        list(voc.voc_examples(images, Guard("strict", Report())))


def test_broken_objects_are_listed_together(small):
    path = small / "Annotations/000001.xml"
    path.write_text(path.read_text().replace("<name>", "<name>un"))
    with pytest.raises(DataError, match=r"test\.txt: has 2 errors") as caught:
        read(small)
    assert "2 x unknown category" in str(caught.value) and "object[1]" in str(caught.value)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("000001", "image id used twice"),
        ("1", "image id used twice"),
        ("../VOC2012/000002", "image set"),
        ("dog", "image set"),
        ("9" * 30, "image set"),
        ("000009", "missing image"),
    ],
)
def test_an_invalid_name_in_the_image_set_is_named(small, name, reason):
    path = small / "ImageSets/Main/test.txt"
    path.write_text(f"000001\n{name} -1\n")
    with pytest.raises(DataError, match=name) as caught:
        voc_official.read_image_set(path, Guard("strict", Report()))
    assert caught.value.reason == reason
    _, report = read(small, "skip")
    assert report.counts == {reason: 1}


ENTITIES = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 9))
BILLION_LAUGHS = f'<!DOCTYPE x [<!ENTITY e0 "ha">{ENTITIES}]><annotation>&e8;</annotation>'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<annotation>",
        b"\x00" * 40,
        BILLION_LAUGHS.encode(),
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>',
        b'<?xml version="1.0" encoding="nonsense"?><annotation/>',
        b'<?xml version="1.0" encoding="utf-7"?><annotation/>',
        b'<?xml version="1.0" encoding="idna"?><annotation/>',
        b'<?xml version="1.0" encoding="base64"?><annotation/>',
        "<annotation>é</annotation>".encode("latin-1"),
        b"<a>" * 100_000,
    ],
    ids=lambda content: content[:30].decode(errors="replace"),
)
def test_what_is_no_annotation_is_named_and_fills_no_memory(tmp_path, content):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.xml: cannot be read"):
        voc_official.read_objects(path, (30, 40), Guard("skip", Report()))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings_decimals_capitals_and_parts_are_read(tmp_path, encoding):
    text = annotation_xml((30, 40), [object_xml("Dog", (1.5, 2.25, 40, 30))])
    text = text.replace("<annotation>", "<annotation><owner>é</owner>")
    name = encoding.removesuffix("-sig")
    path = tmp_path / "a.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{name}"?>{text}'.encode(encoding))
    report = Report()
    (found,) = voc_official.read_objects(path, (30, 40), Guard("strict", report))
    assert VOC_CATEGORIES.names[found.label] == "dog" and report.total == 0
    assert found.corners == (1.5, 2.25, 40, 30)


def test_what_is_changed_is_counted(small):
    path = small / "Annotations/000001.xml"
    text = path.read_text().replace("<width>40", "<width>41").replace("<xmax>40", "<xmax>44")
    path.write_text(text)
    _, report = read(small)
    assert report.counts == {
        "size disagrees, size of the file used": 1,
        "box partly outside, clipped": 1,
    }
