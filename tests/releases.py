"""Small releases of COCO and Pascal VOC, laid out as the official ones are."""

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

XML = """<annotation><size><width>40</width><height>30</height></size><object><name>cat</name>
<pose>Left</pose><truncated>0</truncated><difficult>0</difficult>
<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>14</xmax><ymax>15</ymax></bndbox></object></annotation>"""


def write_coco(sample: Path, root: Path, year: str = "2017") -> Path:
    """COCO's folders from real photographs; one box has no width, as in the official file."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        content = json.loads((sample / f"annotations/instances_{split}.json").read_text())
        _copy_images(sample, root / f"{split}{year}", content)
        if split == "train":
            content["annotations"][0]["bbox"][2] = 0
        _write(root / f"annotations/instances_{split}{year}.json", content)
    del content["annotations"]
    content["images"] = content["images"][:5]
    _copy_images(sample, root / f"test{year}", content)
    _write(root / f"annotations/image_info_test{year}.json", content)
    return root


def zip_coco(root: Path, archives: Path, year: str = "2017") -> Path:
    """The archives of `write_coco`'s folders: images stored, annotations deflated."""
    archives.mkdir()
    for split in ("train", "val", "test"):
        with zipfile.ZipFile(archives / f"{split}{year}.zip", "w") as file:
            for path in sorted((root / f"{split}{year}").iterdir()):
                file.write(path, f"{split}{year}/{path.name}")
    kinds = {f"annotations_trainval{year}": "instances", f"image_info_test{year}": "image_info"}
    for name, kind in kinds.items():
        with zipfile.ZipFile(archives / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted((root / "annotations").glob(f"{kind}*")):
                file.write(path, f"annotations/{path.name}")
    return archives


def write_voc(root: Path) -> Path:
    """VOCdevkit with one grey image and one cat for each image set."""
    image = cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    for year, image_set, name in (
        ("2007", "train", "000001"),
        ("2007", "val", "000002"),
        ("2007", "test", "000003"),
        ("2012", "train", "2012_000001"),
        ("2012", "val", "2012_000002"),
    ):
        folder = root / f"VOCdevkit/VOC{year}"
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Main/{image_set}.txt").write_text(f"{name}\n")
        (folder / f"JPEGImages/{name}.jpg").write_bytes(image)
        (folder / f"Annotations/{name}.xml").write_text(XML)
    return root


def tar_voc(root: Path, archives: Path) -> Path:
    """The archives of `write_voc`'s devkit; 2007's test set is in one of its own."""
    archives.mkdir()
    tests = "test.txt", "000003.jpg", "000003.xml"
    parts = {
        "VOCtrainval_06-Nov-2007.tar": ("VOC2007", lambda name: name not in tests),
        "VOCtest_06-Nov-2007.tar": ("VOC2007", lambda name: name in tests),
        "VOCtrainval_11-May-2012.tar": ("VOC2012", lambda name: True),
    }
    for archive, (folder, belongs) in parts.items():
        with tarfile.open(archives / archive, "w") as file:
            for path in sorted((root / "VOCdevkit" / folder).rglob("*")):
                if path.is_dir() or belongs(path.name):
                    file.add(path, path.relative_to(root), recursive=False)
    return archives


def _copy_images(sample: Path, folder: Path, content: dict) -> None:
    folder.mkdir()
    for image in content["images"]:
        shutil.copy(sample / "images" / image["file_name"], folder)


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))
