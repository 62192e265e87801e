"""`retinanet-jax prepare` as a user runs it: load_dataset reads what it writes."""

import os
import subprocess
import sys
import types
from pathlib import Path

from data_settings import data_settings
from releases import tar_voc, write_coco, write_voc, zip_coco

from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES
from retinanet_jax.data.dataset import load_dataset

ROOT = Path(__file__).resolve().parent.parent


def prepare(**options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "retinanet_jax", "prepare"]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # installed or not
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def data_config(name: str, root: Path, eval_split: str) -> types.SimpleNamespace:
    return data_settings(name, root, root / "cache", eval_split=eval_split)


def test_coco(shared_dir, tmp_path):
    folders = write_coco(shared_dir / "data/coco_sample", tmp_path / "folders")
    source, data_dir = zip_coco(folders, tmp_path / "archives"), tmp_path / "tfds"
    done = prepare(dataset="coco", source=source, data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    assert "1 x box without area" in done.stdout
    counts = {}
    for split in ("train", "validation"):
        dataset = load_dataset(data_config("coco", data_dir, "validation"), split)
        truth = dataset.ground_truth()
        counts[split] = len(dataset.source), len(truth["annotations"])
        assert dataset.categories == COCO_CATEGORIES
        assert any(a["area"] != int(a["area"]) for a in truth["annotations"])
    assert counts == {"train": (24, 255), "validation": (40, 391)}
    failed = prepare(dataset="coco", source=tmp_path, data_dir=tmp_path / "other")
    assert failed.returncode == 1 and "train2017.zip" in failed.stderr
    again = prepare(dataset="coco", source=tmp_path, data_dir=data_dir)  # there already
    assert again.returncode == 0 and str(data_dir / "coco/2017/1.1.0") in again.stdout
    assert "1 x box without area" in again.stdout


def test_voc(tmp_path):
    source = tar_voc(write_voc(tmp_path / "folders"), tmp_path / "archives")
    done = prepare(dataset="voc", source=source, data_dir=tmp_path / "tfds")
    assert done.returncode == 0, done.stderr
    for split, count in (("train", 4), ("test", 1)):
        dataset = load_dataset(data_config("voc", tmp_path / "tfds", "test"), split)
        assert len(dataset.source) == count
        assert dataset.source[0].boxes.tolist() == [[2, 3, 14, 15]]
    failed = prepare(dataset="voc2012", source=tmp_path / "none", data_dir=tmp_path / "other")
    assert failed.returncode == 1 and "none: is not a folder" in failed.stderr


def test_wrong_use_says_what_to_write(tmp_path):
    missing = prepare(dataset="voc")
    assert missing.returncode == 1 and "set --dataset and --source, or --convert" in missing.stderr
    failed = prepare(convert=tmp_path / "none", data_dir=tmp_path)
    assert failed.returncode == 1 and "none: TFDS cannot read it" in failed.stderr
