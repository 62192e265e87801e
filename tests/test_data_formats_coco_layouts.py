"""Folders with COCO files: their splits by name, and where the files may be."""

import json
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


def test_two_files_of_one_split_keep_their_names(tmp_path):
    files = {"train": "annotations/train_v1.json", "val": "annotations/train_v2.json"}
    assert coco_layouts.find(write(tmp_path, files)).splits == ("train_v1", "train_v2")
