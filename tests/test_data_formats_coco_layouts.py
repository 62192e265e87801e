"""Folders with COCO files: their splits by name, and where the files may be."""

import json
import shutil
from pathlib import Path

import pytest
from layout_writers import SMALL, class_names, coco_json, write_image
from raw_reading import boxes, expected, read

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


def test_two_files_of_one_split_keep_their_names(tmp_path):
    files = {"train": "annotations/train_v1.json", "val": "annotations/train_v2.json"}
    assert coco_layouts.find(write(tmp_path, files)).splits == ("train_v1", "train_v2")
