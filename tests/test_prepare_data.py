"""scripts/prepare_data.py, as one runs it: what it writes is what load_dataset reads."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np

from retinanet_jax.data.class_names import COCO_CATEGORIES
from retinanet_jax.data.dataset import load_dataset

ROOT = Path(__file__).resolve().parent.parent

XML = """<annotation><size><width>40</width><height>30</height></size><object><name>cat</name>
<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>14</xmax><ymax>15</ymax></bndbox></object></annotation>"""


def prepare(dataset: str, source: Path, data_dir: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/prepare_data.py", f"--dataset={dataset}"]
    command += [f"--source={source}", f"--data_dir={data_dir}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # installed or not
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


def data_config(name: str, root: Path, cache_dir: Path, eval_split: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        name=name,
        root=str(root),
        cache_dir=str(cache_dir / "cache"),
        train_split="train",
        eval_split=eval_split,
        annotations="",
        on_error="strict",
    )


def test_coco(shared_dir, tmp_path):
    source, data_dir = tmp_path / "coco", tmp_path / "tfds"
    sample = shared_dir / "data/coco_sample"
    (source / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        content = json.loads((sample / f"annotations/instances_{split}.json").read_text())
        (source / f"{split}2017").mkdir()
        for image in content["images"]:
            shutil.copy(sample / "images" / image["file_name"], source / f"{split}2017")
        if split == "train":
            content["annotations"][0]["bbox"][2] = 0  # as a few in the official file are
        path = source / f"annotations/instances_{split}2017.json"
        path.write_text(json.dumps(content))
    done = prepare("coco", source, data_dir)
    assert done.returncode == 0, done.stderr
    assert "1 x box without area" in done.stdout and "source.json" in done.stdout
    settings = data_config("coco", data_dir, tmp_path, "validation")
    counts = {}
    for split in ("train", "validation"):
        dataset = load_dataset(settings, split)
        truth = dataset.ground_truth()
        counts[split] = len(dataset.source), len(truth["annotations"])
        assert dataset.categories == COCO_CATEGORIES
        assert any(a["area"] != int(a["area"]) for a in truth["annotations"])
    assert counts == {"train": (24, 255), "validation": (40, 391)}
    failed = prepare("coco", tmp_path, tmp_path / "other")
    assert failed.returncode == 1 and "instances_val2017.json" in failed.stderr
    again = prepare("coco", tmp_path, data_dir)  # there already: the source is not looked at
    assert again.returncode == 0 and str(data_dir / "coco/2017/1.1.0") in again.stdout
    assert "1 x box without area" in again.stdout


def test_voc(tmp_path):
    devkit, pixels = tmp_path / "VOCdevkit", np.zeros((30, 40, 3), np.uint8)
    for year, image_set, name in (
        ("2007", "trainval", "000001"),
        ("2007", "test", "000002"),
        ("2012", "trainval", "2012_000003"),
    ):
        folder = devkit / f"VOC{year}"
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Main/{image_set}.txt").write_text(f"{name}\n")
        cv2.imwrite(str(folder / f"JPEGImages/{name}.jpg"), pixels)
        (folder / f"Annotations/{name}.xml").write_text(XML)
    done = prepare("voc", tmp_path, tmp_path / "tfds")
    assert done.returncode == 0, done.stderr
    for split, count in (("train", 2), ("test", 1)):
        dataset = load_dataset(data_config("voc", tmp_path / "tfds", tmp_path, "test"), split)
        assert len(dataset.source) == count
        assert dataset.source[0].boxes.tolist() == [[2, 3, 14, 15]]
    failed = prepare("voc", tmp_path / "none", tmp_path / "other")
    assert failed.returncode == 1 and "VOCdevkit holds VOC2007 and VOC2012" in failed.stderr
