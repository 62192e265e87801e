"""Folders with COCO files: their splits by name, and where the files may be."""

import json
import shutil
from pathlib import Path

import pytest
from layout_writers import SMALL, Annotated, Box, class_names, coco_json, write_image
from raw_reading import boxes, expected, read

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.folder import FolderSettings, load_index
from retinanet_jax.data.formats import coco_layouts


def write(root: Path, files: dict[str, str], images: str = "images") -> Path:
    """Files by split; images/<split>."""
    for split, name in files.items():
        for image in SMALL[split]:
            write_image(root / images / split, image)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        content = coco_json(SMALL[split], class_names(SMALL))
        (root / name).write_text(json.dumps(content), encoding="utf-8")
    return root


def check(root: Path) -> None:
    """That both splits are read with their images."""
    assert set(coco_layouts.find(root).splits) == {"train", "val"}
    for split in SMALL:
        content = read(coco_layouts.find, root, split)
        assert boxes(content) == expected(SMALL, split)
        assert all(image.path.is_file() for image in content.images)


@pytest.mark.parametrize(
    "name",
    [
        "{}_annotations.json",
        "annotations/{}_coco.json",
        "annotations/mydata_{}.json",
        "annotations/person_keypoints_{}.json",
        "annotations/instances_{}.json",
    ],
)
def test_the_split_may_be_anywhere_in_the_name(tmp_path, name):
    check(write(tmp_path, {split: name.format(split) for split in SMALL}))


@pytest.mark.parametrize("folder", ["Annotations", "labels", "annotation", "json", "some name"])
@pytest.mark.parametrize("name", ["{}.json", "instances_{}.json", "X_{}.JSON"])
def test_the_files_may_be_in_any_folder_beside_the_images(tmp_path, folder, name):
    check(write(tmp_path, {split: f"{folder}/{name.format(split)}" for split in SMALL}, "Images"))


def test_a_key_of_its_own_may_come_first_and_other_files_may_be_beside_it(tmp_path):
    path = write(tmp_path, {"train": "annotations.json"}) / "annotations.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"version": 1, **content}))
    for number in range(21):
        (tmp_path / f"meta_{number}.json").write_text('{"iso": 100}')
    assert boxes(read(coco_layouts.find, tmp_path, "annotations")) == expected(SMALL)


def test_other_json_is_not_coco(tmp_path):
    for text in ('{"version": 1, "shapes": []}', '{"a.jpg": {"regions": []}}', '[{"images": []}]'):
        (tmp_path / "annotations.json").write_text(text)
        assert coco_layouts.find(tmp_path) is None


def test_images_that_are_missing_are_expected_in_images(tmp_path):
    root = write(tmp_path, {"train": "annotations/instances_default.json"})
    shutil.rmtree(root / "images")
    for image in read(coco_layouts.find, root, "default").images:
        assert image.path.parent == root / "images"


def parts(root: Path, names: dict[str, str]) -> Path:
    """COCO files of the images a.png, b.png, ... by name; a box begins at the letter's number.

    The ids of images, objects and categories begin from 1 in each file, and the categories of every
    second file are in another order.
    """
    for number, (name, letters) in enumerate(names.items()):
        images = [
            Annotated(f"{letter}.png", 64, 48, (Box(class_of(letter), *box(letter)),))
            for letter in letters
        ]
        for image in images:
            write_image(root / "images", image)
        content = coco_json(images, ["cat", "dog"][:: 1 - 2 * (number % 2)])
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content))
    return root


def class_of(letter: str) -> str:
    return ("cat", "dog")[ord(letter) % 2]


def box(letter: str) -> tuple[int, int, int, int]:
    return ord(letter) - ord("a"), 2, 10, 12


def records(root: Path, split: str) -> list:
    """The records of a split, sorted by file name, whose boxes and classes are those of `parts`."""
    found = load_index(FolderSettings(str(root), f"{root}_cache", val_share=0), split)
    for record in found.records():
        letter = Path(record.file_name).stem
        (annotation,) = record.annotations
        assert annotation.bbox == box(letter) and record.path.stem == letter
        assert found.categories.names[annotation.label] == class_of(letter)
        assert annotation.category_id == found.categories.id_of(annotation.label)
    return sorted(found.records(), key=lambda record: record.file_name)


@pytest.mark.parametrize(
    "files",
    [
        ("annotations/train_part0.json", "annotations/train_part1.json", "annotations/val.json"),
        ("instances_train_a.json", "instances_train_b.json", "instances_val_a.json"),
        ("train/part0.json", "train/part1.json", "val/part0.json"),
        ("train/annotations/0.json", "train/annotations/1.json", "val/annotations/0.json"),
    ],
)
def test_files_of_a_split_with_different_images_are_read_together(tmp_path, files):
    root = parts(tmp_path / "data", dict(zip(files, ("abc", "de", "f"), strict=True)))
    assert coco_layouts.find(root).splits == ("train", "val")
    train = records(root, "train")
    assert [record.file_name for record in train] == [f"{letter}.png" for letter in "abcde"]
    assert len({record.id for record in train}) == 5
    assert len({annotation.id for record in train for annotation in record.annotations}) == 5
    assert [record.file_name for record in records(root, "auto")] == ["f.png"]


@pytest.mark.parametrize(
    "files, splits",
    [
        # Two versions or two sets of labels of the same images, and parts that share an image.
        ({"train_v1": "ab", "train_v2": "ab"}, ("train_v1", "train_v2")),
        ({"train_part0": "abc", "train_part1": "cd"}, ("train_part0", "train_part1")),
        (
            {"captions_train2017": "ab", "person_keypoints_train2017": "ab"},
            ("captions_train2017", "person_keypoints_train2017"),
        ),
        # A file of the whole split, and a set of it or others beside it.
        (
            {"instances_train2017": "abc", "instances_train2017_minitrain": "a"},
            ("train2017", "train2017_minitrain"),
        ),
        ({"train": "ab", "train_extra": "cd"}, ("train", "train_extra")),
        # The folds of a cross-validation: joined, both splits would have all images.
        (
            {"train_fold0": "ab", "train_fold1": "cd", "val_fold0": "cd", "val_fold1": "ab"},
            ("train_fold0", "train_fold1", "val_fold0", "val_fold1"),
        ),
        ({"train_1": "ab", "train_2": "cd"}, ("train_1", "train_2")),
        (
            {"image_info_test-dev2017": "a", "image_info_test2017": "ab"},
            ("image_info_test-dev2017", "test2017"),
        ),
    ],
)
def test_variants_of_a_split_are_splits_of_their_own(tmp_path, files, splits):
    root = parts(tmp_path, {f"annotations/{name}.json": images for name, images in files.items()})
    assert coco_layouts.find(root).splits == splits
    if not {"train", "train2017"}.intersection(splits):
        settings = FolderSettings(str(root), str(tmp_path / "cache"))
        with pytest.raises(DataError, match=rf"no split 'train'; use one of {', '.join(splits)}"):
            load_index(settings, "train")


def test_a_broken_file_beside_others_of_its_split_is_not_read_with_them(tmp_path):
    root = parts(tmp_path, {"annotations/train_a.json": "ab", "annotations/train_b.json": "cd"})
    path = root / "annotations/train_b.json"
    path.write_text(path.read_text()[:-9])
    assert coco_layouts.find(root).splits == ("train_a", "train_b")
    with pytest.raises(DataError, match=r"train_b\.json: is not JSON"):
        read(coco_layouts.find, root, "train_b")


def test_errors_of_parts_name_their_file_and_entry(tmp_path):
    root = parts(tmp_path, {"annotations/train_a.json": "ab", "annotations/train_b.json": "cd"})
    settings = FolderSettings(str(root), str(tmp_path / "cache"), val_share=0)
    path = root / "annotations/train_b.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] = -4
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"train_b\.json: image id 1: annotation id 1: .*-4"):
        load_index(settings, "train")
    content["categories"][0]["name"] = "Dog"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"train_b\.json: class 'Dog' differs from class 'dog'"):
        load_index(settings, "train")
