"""Prepared datasets: the folder's photographs and annotations come back as they went in."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_settings import as_array_record, data_settings
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tensorflow_datasets.core import shuffle

from retinanet_jax.data import images
from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES
from retinanet_jax.data.data_errors import Guard, Report
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats.coco import DataError, read_annotations
from retinanet_jax.data.store import builders, tfds_bridge
from retinanet_jax.data.store import complete_folder as once
from retinanet_jax.data.store.array_record import TfdsSource

ROOT = Path(__file__).resolve().parent.parent


def truth_as_detections(dataset) -> list[dict]:
    """The boxes of the images themselves, through labels and category ids, with a score."""
    results = []
    for i in range(len(dataset.source)):
        example = dataset.source[i]
        for box, label, crowd in zip(example.boxes, example.labels, example.crowd, strict=True):
            x1, y1, x2, y2 = box.tolist()
            if not crowd:
                results.append(
                    {
                        "image_id": example.image_id,
                        "category_id": dataset.categories.id_of(int(label)),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "score": 0.9,
                    }
                )
    return results


def average_precisions(truth: dict, results: list[dict]) -> dict[int, float]:
    """AP of pycocotools by category id, of the categories that occur."""
    reference = COCO()
    reference.dataset = truth
    reference.createIndex()
    evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
    evaluation.params.maxDets = [1, 10, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
    return {
        category: float(p)
        for category, p in zip(evaluation.params.catIds, precision, strict=True)
        if p > -1
    }


def write_folder(root: Path, splits=("train", "val"), count=6, size=(30, 40)) -> Path:
    """A small folder in COCO format: random images, one without objects, one crowd."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for number, split in enumerate(splits):
        entries, objects = [], []
        for i in range(count):
            name, image_id = f"{split} é{i}.jpg", 100 * number + 7 * i
            pixels = rng.integers(0, 255, (*size, 3), np.uint8)
            (root / "images" / name).write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
            entries.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
            for _ in range(i):
                x, y = rng.uniform(0, 20, 2)
                objects.append(
                    {
                        "id": len(objects),
                        "image_id": image_id,
                        "category_id": int(rng.choice([90, 4])),
                        "bbox": [x, y, 9.5, 7.25],
                        "area": 60.7,
                        "iscrowd": int(len(objects) == 3),
                    }
                )
        categories = [{"id": 90, "name": "dog"}, {"id": 4, "name": "hot dog"}]
        content = {"images": entries, "annotations": objects, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


@pytest.mark.parametrize(
    "name, split, classes", [("bccd_320", "val", 3), ("coco_sample", "val", 53)]
)
def test_real_photographs_round_trip(shared_dir, tmp_path, name, split, classes):
    root = shared_dir / "data" / name
    dataset = load_dataset(data_settings("folder", root, tmp_path), split)
    official = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    truth = dataset.ground_truth()
    fields = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    assert [{f: a[f] for f in fields} for a in truth["annotations"]] == sorted(
        ({f: a[f] for f in fields} for a in official["annotations"]),
        key=lambda a: [i["id"] for i in truth["images"]].index(a["image_id"]),
    )
    assert {i["id"] for i in truth["images"]} == {i["id"] for i in official["images"]}
    precisions = average_precisions(truth, truth_as_detections(dataset))
    assert len(precisions) == classes
    assert min(precisions.values()) == pytest.approx(1.0)


def test_examples_are_what_the_files_say(folder, tmp_path):
    dataset = load_dataset(data_settings("folder", folder, tmp_path / "cache"), "train")
    annotations = read_annotations(
        folder / "annotations/instances_train.json", folder / "images"
    ).images
    by_id = {image.id: image for image in annotations}
    assert len(dataset.source) == 6 and dataset.categories.ids == (90, 4)
    for i in range(6):
        example = dataset.source[i]
        image = by_id.pop(example.image_id)
        np.testing.assert_allclose(example.boxes, image.boxes(), atol=1e-4)
        np.testing.assert_array_equal(example.labels, image.labels())
        np.testing.assert_array_equal(example.crowd, image.crowd())
        np.testing.assert_array_equal(example.areas, [a.area for a in image.annotations])
        np.testing.assert_array_equal(example.image, images.decode(image.path.read_bytes(), "x"))
        assert example.boxes.dtype == np.float32 and example.boxes.shape[1:] == (4,)
        annotated = dataset.source.annotated(i)
        for ours, theirs in zip(annotated[:3], example[1:4], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert annotated.areas.tolist() == [a.area for a in image.annotations]
        assert annotated.size == dataset.source.image_size(i) == (30, 40)
        assert dataset.source.image_id(i) == image.id
    assert not by_id
    with pytest.raises(IndexError):
        dataset.source[6]


def test_annotation_id_zero_is_numbered_anew(folder, tmp_path):
    """pycocotools takes id 0 for "no match": such a folder would never reach AP 1."""
    dataset = load_dataset(data_settings("folder", folder, tmp_path / "cache"), "val")
    truth = dataset.ground_truth()
    assert min(a["id"] for a in truth["annotations"]) == 1
    assert set(average_precisions(truth, truth_as_detections(dataset)).values()) == {1.0}


def test_slices_restrict_images_and_ground_truth(folder, tmp_path):
    settings = data_settings("folder", folder, tmp_path / "cache")
    whole = load_dataset(settings, "val")
    parts = [load_dataset(settings, f"val[{part}]") for part in (":2", "2:50%", "-3:")]
    assert [len(part.source) for part in parts] == [2, 1, 3]
    ids = [part.source.image_id(i) for part in parts for i in range(len(part.source))]
    assert ids == [whole.source[i].image_id for i in range(6)]
    for part in parts:
        own = {part.source[i].image_id for i in range(len(part.source))}
        truth = part.ground_truth()
        assert {image["id"] for image in truth["images"]} == own
        assert {a["image_id"] for a in truth["annotations"]} <= own
    counted = sum(len(part.ground_truth()["annotations"]) for part in parts)
    assert counted == len(whole.ground_truth()["annotations"]) == 15


@pytest.mark.parametrize("split", ["val[:0]", "val[9:]", "val[", "val+train", "all", "", "../val"])
def test_invalid_splits_are_errors(folder, tmp_path, split):
    with pytest.raises(DataError):
        load_dataset(data_settings("folder", folder, tmp_path / "cache"), split)


def test_missing_things_are_named(folder, tmp_path):
    cases = {
        "no such place": (
            data_settings("folder", tmp_path / "none"),
            "val",
            "none: does not exist",
        ),
        "no such split": (
            data_settings("folder", folder),
            "test",
            "use one of train, val",
        ),
        "nothing prepared": (
            data_settings("coco", tmp_path / "tfds"),
            "validation",
            r"tfds/coco/2017.*prepare --dataset=coco",
        ),
    }
    for settings, split, message in cases.values():
        with pytest.raises(DataError, match=message):
            load_dataset(settings, split)
    shutil.rmtree(folder / "images")
    with pytest.raises(DataError, match=r"6 x missing image"):
        load_dataset(data_settings("folder", folder, tmp_path), "val")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def test_truncated_image_stops_or_is_skipped(folder, tmp_path, caplog):
    truncate(folder / "images/train é5.jpg")
    settings = data_settings("folder", folder, tmp_path / "cache")
    with pytest.raises(
        DataError, match=r"instances_train\.json: image id 35: .*é5\.jpg.*truncated"
    ):
        load_dataset(settings, "train")
    settings.on_error = "skip"
    for _ in range(2):  # read, then taken from the index: logged both times
        caplog.clear()
        dataset = load_dataset(settings, "train")
        assert "1 x undecodable image" in caplog.text and "image id 35" in caplog.text
        assert "5 x object of a skipped image" in dataset.notes and dataset.notes in caplog.text
    assert dataset.report.total == 6
    assert len(dataset.source) == len(dataset.ground_truth()["images"]) == 5
    assert len(dataset.ground_truth()["annotations"]) == 10


def test_strict_lists_all_images_that_do_not_decode(folder, tmp_path):
    for i in (1, 3, 5):
        truncate(folder / f"images/train é{i}.jpg")
    with pytest.raises(DataError, match=r"data: has 3 errors") as caught:
        load_dataset(data_settings("folder", folder, tmp_path / "cache"), "train")
    assert all(f"image id {7 * i}" in str(caught.value) for i in (1, 3, 5))


def test_a_class_without_a_box_is_logged(folder, tmp_path, caplog):
    """As exports write it that put a group of classes, or a background, first."""
    for path in (folder / "annotations").iterdir():
        content = json.loads(path.read_text())
        content["categories"].insert(0, {"id": 0, "name": "background", "supercategory": "none"})
        path.write_text(json.dumps(content))
    settings = data_settings("folder", folder, tmp_path / "cache")
    train, evaluated = load_dataset(settings, "train"), load_dataset(settings, "val")
    assert "1 of 3 classes have no box and are not learned: background;" in train.notes
    assert train.notes in caplog.text and evaluated.notes == ""
    assert train.categories.names == ("background", "dog", "hot dog")


def test_nothing_decodable_stops_in_skip_too(folder, tmp_path):
    for path in (folder / "images").glob("train*"):
        truncate(path)
    with pytest.raises(DataError, match=r"none of 6 images can be used.*6 x undecodable image"):
        load_dataset(data_settings("folder", folder, tmp_path, on_error="skip"), "train")


def python(code: str, *arguments) -> subprocess.Popen:
    """Another Python process: a fork of one that runs JAX may hang."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


PREPARE = """
import sys
from pathlib import Path
from retinanet_jax.data.folder import FolderSettings
from retinanet_jax.data.store.prepare_folder import prepare_folder
settings = FolderSettings(sys.argv[1], sys.argv[2], eval_split="train")
print(prepare_folder(settings, Path(sys.argv[2])))
"""

KILLED_WHILE_WRITING = """
import os, pathlib, signal, sys
from retinanet_jax.data.store.complete_folder import prepare_once

def write(temporary):
    (temporary / "x").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)

data_dir = pathlib.Path(sys.argv[1])
prepare_once(data_dir, data_dir / "x", write)
"""


def test_two_processes_prepare_one_dataset(folder, tmp_path):
    cache_dir = tmp_path / "cache"
    processes = [python(PREPARE, folder, cache_dir) for _ in range(2)]
    printed = {process.communicate(timeout=300)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(printed) == 1
    assert len(TfdsSource(Path(printed.pop()), "train", cache_dir)) == 6
    assert not list(cache_dir.glob(".incomplete*"))


def test_a_killed_preparation_leaves_nothing_that_is_used(tmp_path):
    process = python(KILLED_WHILE_WRITING, tmp_path)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "x").exists() and list(tmp_path.glob(".incomplete*"))

    def write(temporary):
        (temporary / "x").mkdir()

    assert once.prepare_once(tmp_path, tmp_path / "x", write).is_dir()
    assert not list(tmp_path.glob(".incomplete*"))


def test_a_read_only_cache_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*set data\.cache_dir"):
        once.prepare_once(tmp_path / "file", tmp_path / "file/x", lambda path: None)


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, kind):
    """ArrayRecord's writer raises RuntimeError with the system's words in it."""

    def write(temporary):
        (temporary / "x").mkdir()
        raise kind(f"write() failed: {os.strerror(errno.ENOSPC)}; at byte 5")

    with pytest.raises(DataError, match=rf"{tmp_path}: No space left on device; free some space"):
        once.prepare_once(tmp_path, tmp_path / "x", write)
    assert [path.name for path in tmp_path.iterdir()] == [".x.lock"]


def test_a_large_split_is_written_in_the_same_order(folder, tmp_path, monkeypatch):
    """TFDS spills large splits to files, through TensorFlow."""
    plain = as_array_record(folder, "train", tmp_path / "plain")
    monkeypatch.setattr(tfds_bridge, "BUFFER_BYTES", 3000)
    tensorflow, memory = shuffle.tf, shuffle.MAX_MEM_BUFFER_SIZE
    spilled = as_array_record(folder, "train", tmp_path / "spilled")
    assert shuffle.tf is tensorflow and memory == shuffle.MAX_MEM_BUFFER_SIZE
    one, other = (TfdsSource(p, "train", tmp_path) for p in (plain, spilled))
    assert [one[i].image_id for i in range(6)] == [other[i].image_id for i in range(6)]
    assert not list(spilled.glob("*bucket*"))


@pytest.fixture(scope="module")
def tfds_coco(shared_dir, tmp_path_factory):
    """`coco/2017` as TFDS would prepare it elsewhere: without any file of ours beside it."""
    data_dir = tmp_path_factory.mktemp("tfds")
    root = shared_dir / "data/coco_sample"
    annotations = read_annotations(root / "annotations/instances_val.json", root / "images")
    builders.write_coco(
        data_dir,
        ("coco", "2017", "1.1.0"),
        {"validation": annotations.images},
        annotations.categories,
        Guard("strict", Report()),
        origin="test",
    )
    prepared = data_dir / "coco/2017/1.1.0"
    for name in ("source.json", "ground_truth_validation.json", "index_validation.npz"):
        (prepared / name).unlink()
    return data_dir


def test_tfds_coco_has_the_official_ids(tfds_coco, tmp_path, caplog):
    dataset = load_dataset(data_settings("coco", tfds_coco, tmp_path), "validation")
    assert dataset.categories == COCO_CATEGORIES
    with caplog.at_level(logging.WARNING):
        truth = dataset.ground_truth()
    assert "integers" in caplog.text and "data.annotations" in caplog.text
    assert len(truth["images"]) == 40 and len(truth["annotations"]) == 391
    assert sum(a["iscrowd"] for a in truth["annotations"]) == 6
    precisions = average_precisions(truth, truth_as_detections(dataset))
    assert min(precisions.values()) == pytest.approx(1.0) and len(precisions) == 53


def test_tfds_coco_is_scored_against_the_official_file(tfds_coco, shared_dir, tmp_path, caplog):
    official = shared_dir / "data/coco_sample/annotations/instances_val.json"
    settings = data_settings("coco", tfds_coco, tmp_path, annotations=str(official))
    dataset = load_dataset(settings, "validation[:32]")
    truth = dataset.ground_truth()
    assert not caplog.records
    ids = {dataset.source.image_id(i) for i in range(32)}
    assert {image["id"] for image in truth["images"]} == ids and len(ids) == 32
    expected = [a for a in json.loads(official.read_text())["annotations"] if a["image_id"] in ids]
    assert [a["area"] for a in truth["annotations"]] == [a["area"] for a in expected]
    precisions = average_precisions(truth, truth_as_detections(dataset))
    assert min(precisions.values()) == pytest.approx(1.0)


def test_an_official_file_of_another_split_is_refused(tfds_coco, shared_dir, tmp_path):
    wrong = shared_dir / "data/coco_sample/annotations/instances_train.json"
    settings = data_settings("coco", tfds_coco, tmp_path, annotations=str(wrong))
    with pytest.raises(DataError, match=r"instances_train\.json.*lacks 40 of 40 images"):
        load_dataset(settings, "validation").ground_truth()
    with pytest.raises(DataError, match="has no split 'train'"):
        load_dataset(data_settings("coco", tfds_coco, tmp_path), "train")


@pytest.mark.parametrize("split", ["train2017", "train-2017_a", "2017", "Validation"])
def test_any_name_of_letters_and_digits_is_a_split(tmp_path, split):
    folder = write_folder(tmp_path / "data", splits=(split,), count=3)
    settings = data_settings(
        "folder", folder, tmp_path / "cache", train_split=split, eval_split=split
    )
    assert len(load_dataset(settings, f"{split}[1:]").source) == 2


def test_official_annotations_of_a_folder_override_its_own(folder, tmp_path):
    other = tmp_path / "official.json"
    content = json.loads((folder / "annotations/instances_val.json").read_text())
    content["annotations"] = [{**a, "area": 9.25} for a in content["annotations"]]
    other.write_text(json.dumps(content))
    settings = data_settings("folder", folder, tmp_path / "cache", annotations=str(other))
    truth = load_dataset(settings, "val").ground_truth()
    assert {a["area"] for a in truth["annotations"]} == {9.25}
    truth = load_dataset(settings, "train").ground_truth()
    assert {a["area"] for a in truth["annotations"]} == {60.7}


@pytest.mark.parametrize(
    "section, field, value, named",
    [
        ("annotations", "area", "drop", "has no field 'area'"),
        ("annotations", "area", float("nan"), "area is nan"),
        ("annotations", "bbox", ["1", 2, 3, 4], "bbox is"),
        ("annotations", "image_id", [7], r"image_id is \[7\]"),
        ("annotations", "category_id", 17, "category_id 17 is not among"),
        ("annotations", "id", 0, "id 0 is used twice"),
        ("annotations", "iscrowd", "no", "iscrowd is 'no'"),
        ("images", "id", {}, r"id is \{\}"),
        ("images", "id", 100, "id 100 is used twice"),
    ],
)
def test_invalid_official_annotations_are_named(folder, tmp_path, section, field, value, named):
    other = tmp_path / "official.json"
    content = json.loads((folder / "annotations/instances_val.json").read_text())
    content[section][2][field] = value
    if value == "drop":
        del content[section][2][field]
    other.write_text(json.dumps(content))
    settings = data_settings("folder", folder, tmp_path / "cache", annotations=str(other))
    with pytest.raises(DataError, match=rf"official\.json: {section}\[2\].*{named}"):
        load_dataset(settings, "val").ground_truth()


def test_records_that_are_not_array_record_are_refused(folder, tmp_path):
    prepared = as_array_record(folder, "val", tmp_path / "cache")
    info = json.loads((prepared / "dataset_info.json").read_text())
    (prepared / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(DataError, match="tfrecord, not array_record"):
        TfdsSource(prepared, "val", tmp_path)
    (prepared / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="TFDS cannot read it"):
        TfdsSource(prepared, "val", tmp_path)


def test_sizes_are_kept_and_a_broken_cache_is_done_without(folder, tmp_path, monkeypatch, caplog):
    prepared = as_array_record(folder, "val", tmp_path / "cache")
    ids = TfdsSource(prepared, "val", tmp_path).index().ids
    assert not (tmp_path / "index").exists()  # what we prepare has them beside the records
    (prepared / "index_val.npz").unlink()
    np.testing.assert_array_equal(TfdsSource(prepared, "val", tmp_path).index().ids, ids)
    (stored,) = (tmp_path / "index").iterdir()
    stored.write_bytes(stored.read_bytes()[:100])
    np.testing.assert_array_equal(TfdsSource(prepared, "val", tmp_path).index().ids, ids)
    monkeypatch.setattr(TfdsSource, "read_index", lambda self: pytest.fail("read again"))
    np.testing.assert_array_equal(TfdsSource(prepared, "val", tmp_path).index().ids, ids)
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    source = TfdsSource(prepared, "val", tmp_path / "file")
    np.testing.assert_array_equal(source.index().ids, ids)
    assert "cannot store image sizes" in caplog.text


def test_threads_read_what_one_thread_reads(folder, tmp_path):
    prepared = as_array_record(folder, "val", tmp_path / "cache")
    expected = [TfdsSource(prepared, "val", tmp_path)[i] for i in range(6)]
    source = TfdsSource(prepared, "val", tmp_path / "other")
    numbers = list(range(6)) * 10
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.__getitem__, numbers))
        sizes = list(pool.map(source.image_size, numbers))
    for number, example, size in zip(numbers, found, sizes, strict=True):
        np.testing.assert_array_equal(example.image, expected[number].image)
        np.testing.assert_array_equal(example.boxes, expected[number].boxes)
        assert size == (30, 40) and example.image_id == expected[number].image_id


def test_shapes_splits_share_no_image(tmp_path):
    train = load_dataset(data_settings("shapes"), "train[:5]")
    evaluated = load_dataset(data_settings("shapes"), "validation")
    assert (len(train.source), len(evaluated.source)) == (5, 10)
    assert train.source.image_size(0) == (64, 96)
    assert not np.array_equal(train.source[0].image, evaluated.source[0].image)
    truth = train.ground_truth()
    assert {image["id"] for image in truth["images"]} == set(range(5))
    assert {a["image_id"] for a in truth["annotations"]} <= set(range(5))


def test_unknown_name_says_what_there_is():
    with pytest.raises(ValueError, match=r"data\.name: 'x' is not one of shapes, folder"):
        load_dataset(data_settings("x"), "train")
