"""Images in other folders than the annotations, as archives are extracted one beside the other."""

import json
import shutil
import time

import pytest
from layout_writers import FURTHER_WRITERS, SMALL, WRITERS, Annotated, write_dota, write_image
from raw_reading import boxes, expected, read

from retinanet_jax.data.annotations.image_finder import ImageFinder
from retinanet_jax.data.data_errors import DataError
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
    found, missing = found_at(tmp_path)[1].images
    assert found.path == tmp_path / "images/images/train/a.jpg"
    assert missing.path.name == "b.jpg" and not missing.path.exists()


def test_many_images_are_found_in_no_time(tmp_path, monkeypatch):
    """Of the time of finding alone: making as many files would take longer."""
    names = [f"images/images/part{n % 9}/{n}.jpg" for n in range(20_000)]
    finder = ImageFinder(tmp_path, "", [tmp_path])
    monkeypatch.setattr(finder, "_by_name", {n.rpartition("/")[2]: [n] for n in names})
    start = time.process_time()
    for name in names:
        path = finder.find(f"labels/{name.rpartition('/')[2]}", "x", "")
        assert path == str(tmp_path / name)
    assert time.process_time() - start < 2
