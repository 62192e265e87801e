"""Images in other folders than the annotations, as archives are extracted one beside the other."""

import json
import shutil
import time

import numpy as np
import pytest
from data_settings import data_settings
from layout_writers import (
    FURTHER_WRITERS,
    SMALL,
    WRITERS,
    Annotated,
    write_coco,
    write_dota,
    write_image,
)
from raw_reading import boxes, expected, read

from retinanet_jax.data.annotations import image_finder
from retinanet_jax.data.annotations.folder_parts import ImageNames
from retinanet_jax.data.annotations.image_finder import SIMILAR
from retinanet_jax.data.annotations.missing_images import with_missing_images
from retinanet_jax.data.annotations.raw import Layout, RawImage, RawSplit
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.folder import FolderSettings, load_index
from retinanet_jax.data.formats.find_layout import find_layout


def found_at(root, split="train"):
    found = find_layout(root)
    return found, read(lambda _: found.layout, root, split)


def frame(name: str) -> dict:
    """As in bdd100k_labels_images_train.json."""
    box = {"x1": 4, "y1": 6, "x2": 23, "y2": 17}
    return {"name": name, "labels": [{"category": "car", "box2d": box, "id": 0}]}


@pytest.fixture
def bdd100k(tmp_path):
    """BDD100K as on Kaggle: 100k and 10k have images of the same names."""
    labels = tmp_path / "bdd100k_labels_release/bdd100k/labels"
    labels.mkdir(parents=True)
    for split, name in (("train", "a.jpg"), ("val", "b.jpg")):
        path = labels / f"bdd100k_labels_images_{split}.json"
        path.write_text(json.dumps([frame(name)]))
        for release in ("100k", "10k"):
            folder = tmp_path / "bdd100k/bdd100k/images" / release / split
            write_image(folder, Annotated(name, 64, 48))
    return tmp_path


def test_bdd100k_is_read_as_it_is_extracted(bdd100k):
    for split, name in (("train", "a.jpg"), ("val", "b.jpg")):
        found, content = found_at(bdd100k, split)
        assert found.place == bdd100k / "bdd100k_labels_release/bdd100k"
        assert found.layout.folders == (bdd100k,)  # whose files are watched for changes
        (image,) = content.images
        assert image.path == bdd100k / "bdd100k/bdd100k/images/100k" / split / name
        assert image.file_name == f"bdd100k/bdd100k/images/100k/{split}/{name}"


def test_dota_is_read_as_its_parts_are_extracted(tmp_path):
    write_dota(tmp_path / "written", SMALL)
    root = tmp_path / "DOTA"
    for split in SMALL:
        labels = root / split / "labelTxt-v1.0/labelTxt"
        shutil.copytree(tmp_path / "written" / split / "labelTxt", labels)
        for number, image in enumerate(SMALL[split], 1):
            write_image(root / split / f"images/part{number}/images", image)
        found, content = found_at(root, split)
        assert found.layout.name == "dota"
        assert boxes(content) == expected(SMALL, split)
        assert all(image.path.is_file() for image in content.images)


@pytest.mark.parametrize("name", ["voc", "labelme", "coco", "via", "csv", "kitti", "createml"])
def test_archives_of_images_and_annotations_are_beside_each_other(tmp_path, name):
    one = {"train": [image for image in SMALL["train"] if image.boxes]}
    (WRITERS | FURTHER_WRITERS)[name](tmp_path / "written", one)
    root = tmp_path / "dataset"
    for image in one["train"]:
        write_image(root / "images/images", image)
    for path in (tmp_path / "written").rglob("*.*"):
        if path.is_file() and path.suffix != ".png":
            (root / "labels/annotations").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / "labels/annotations" / path.name)
    found, content = found_at(root)
    assert found.layout.name == name
    assert boxes(content) == expected(one)
    assert all(image.path.is_file() for image in content.images)


def test_an_image_of_another_annotation_file_is_not_taken(tmp_path):
    write_dota(tmp_path, {"train": SMALL["train"][:1]})
    labels, images = tmp_path / "train/labelTxt", tmp_path / "train/images"
    (labels / "part1").mkdir()
    shutil.copy(labels / "a.txt", labels / "part1/a.txt")
    (images / "part1").mkdir()
    (images / "a.png").rename(images / "part1/a.png")
    paths = {image.path for image in found_at(tmp_path)[1].images}
    assert paths == {images / "part1/a.png", images / "a.png"}  # the second is missing
    (labels / "part1/a.txt").unlink()
    (images / "part2").mkdir()
    shutil.copy(images / "part1/a.png", images / "part2/a.png")
    with pytest.raises(DataError, match=r"a\.txt: may belong to part1/a\.png or part2/a\.png"):
        found_at(tmp_path)


def test_an_image_that_is_nowhere_is_missing_where_the_release_has_it(bdd100k):
    for path in bdd100k.rglob("a.jpg"):
        path.unlink()
    (image,) = found_at(bdd100k)[1].images
    assert image.path == bdd100k / "bdd100k_labels_release/bdd100k/images/100k/train/a.jpg"


@pytest.mark.parametrize("other", ["images/images/test/b.jpg", "masks/b.png"])
def test_neither_an_image_of_another_split_nor_a_mask_replaces_a_missing_one(tmp_path, other):
    coco = {
        "images": [
            {"id": n, "file_name": name, "width": 64, "height": 48}
            for n, name in enumerate(("a.jpg", "b.jpg"), 1)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 10, 12]} for n in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "labels/labels").mkdir(parents=True)
    (tmp_path / "labels/labels/train.json").write_text(json.dumps(coco))
    for name in ("images/images/train/a.jpg", other):
        folder, _, file_name = name.rpartition("/")
        write_image(tmp_path / folder, Annotated(file_name, 64, 48))
    if other == "masks/b.png":
        found, missing = found_at(tmp_path)[1].images
        assert found.path == tmp_path / "images/images/train/a.jpg"
        assert missing.path.name == "b.jpg" and not missing.path.exists()
    else:
        with pytest.raises(
            DataError, match=r"b\.jpg' is missing; .*test/b\.jpg is of another split"
        ):
            found_at(tmp_path)


def taken(folder, *names: str) -> tuple[list[str], int]:
    """The names of the files that are taken for images, and the number of notes."""
    images = tuple(RawImage(name, folder / name, folder / "x.json", ()) for name in names)
    layout = Layout("x", "x", ("train",), lambda split, guard: RawSplit(images))
    guard = Guard("strict", Report())
    found = with_missing_images(folder, layout, folder).read("train", guard)
    guard.finish(folder)
    assert [image.file_name for image in found.images] == list(names)
    assert {reason for reason, _ in found.notes} <= {SIMILAR}
    return [image.path.name for image in found.images], len(found.notes)


@pytest.mark.parametrize(
    "stated, file",
    [("a.jpg", "a.JPG"), ("Img 1.PNG", "img 1.png"), ("B\u00e4r.jpg", "Ba\u0308r.jpg")],
)
def test_the_one_file_of_a_similar_name_is_taken_in_every_layout(tmp_path, stated, file):
    (tmp_path / file).touch()
    assert taken(tmp_path, stated) == ([file], 1)
    assert taken(tmp_path, file) == ([file], 0)
    # A file of the name itself goes first, and one that another entry names is its own.
    assert taken(tmp_path, stated, file) == ([stated, file], 0)
    (tmp_path / stated).touch()
    assert taken(tmp_path, stated) == ([stated], 0)


def test_a_file_of_the_same_name_in_another_folder_is_not_taken_beside_images(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.jpg").touch()
    assert taken(tmp_path, "a.jpg") == (["a.jpg"], 0)


@pytest.mark.parametrize("name", sorted((WRITERS | FURTHER_WRITERS).keys() - {"tfrecord"}))
def test_a_folder_of_windows_is_read_in_each_layout_and_its_names_are_counted(tmp_path, name):
    root = tmp_path / "data"
    (WRITERS | FURTHER_WRITERS)[name](root, SMALL)
    settings = FolderSettings(str(root), str(tmp_path / "cache"))
    for path in list(root.rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    records = list(load_index(settings, "train").records())
    assert all(record.path.suffix == ".PNG" and record.path.is_file() for record in records)
    found = {record.path.stem: [a.bbox for a in record.annotations] for record in records}
    images = [image for image in SMALL["train"] if image.boxes or name != "csv"]
    wanted = [[box[1:] for box in image.boxes] for image in images]
    for boxes_of_image, stem in zip(wanted, sorted(found), strict=True):
        np.testing.assert_allclose(np.ravel(found[stem]), np.ravel(boxes_of_image), atol=1e-3)


def test_an_image_of_the_same_name_in_another_format_is_named(tmp_path):
    root = tmp_path / "data"
    write_coco(root, SMALL)
    (root / "images/train/a.png").unlink()
    write_image(root / "images/train", Annotated("a.jpg", 64, 48))
    settings = data_settings("folder", root, tmp_path / "cache")
    with pytest.raises(DataError, match=r"there is .*images/train/a\.jpg: write this name"):
        load_dataset(settings, "train")


def test_many_images_are_found_in_no_time(tmp_path, monkeypatch):
    """Of the time of finding alone: making as many files would take longer."""
    names = [f"images/images/part{n % 9}/{n}.jpg" for n in range(20_000)]
    stated = [f"labels/{name.rpartition('/')[2]}" for name in names]
    images = ImageNames(tmp_path)
    images.names.update(names)
    monkeypatch.setattr(image_finder, "ImageNames", lambda root: images)
    finder = image_finder.ImageFinder(tmp_path, "", [tmp_path], lambda: stated)
    start = time.process_time()
    for name, wanted in zip(stated, names, strict=True):
        assert finder.find(name, "x", "") == str(tmp_path / wanted)
    assert time.process_time() - start < 2
