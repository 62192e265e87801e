"""What counts as a change of a dataset: also files outside of its folder, and README.md."""

import json
import os
from pathlib import Path

import pytest
from data_settings import data_settings
from layout_writers import (
    SMALL,
    WRITERS,
    Annotated,
    write_image,
    write_imagefolder,
    write_supervisely,
)

from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import yolo
from retinanet_jax.data.store import file_facts
from retinanet_jax.data.store.file_facts import stamp_files

KINDS = (("images", "png"), ("labels", "txt"))


def change(path: Path, text: str) -> None:
    """Writes a text of any length so that the file is newer than before."""
    before = path.stat().st_mtime_ns
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.fixture
def yolo_lists(tmp_path):
    """cfg/data.yaml, whose lists in lists/ name images in data/images."""
    for number in range(3):
        write_image(tmp_path / "data/images", Annotated(f"{number}.png", 64, 48))
        path = tmp_path / f"data/labels/{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    for split, numbers in (("train", (0, 1)), ("val", (2,))):
        lines = [f"{tmp_path}/data/images/{number}.png\n" for number in numbers]
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / f"lists/{split}.txt").write_text("".join(lines), encoding="utf-8")
    lists = f"train: {tmp_path}/lists/train.txt\nval: {tmp_path}/lists/val.txt\n"
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg/data.yaml").write_text(lists + "names: [cat, dog]\n", encoding="utf-8")
    return tmp_path / "cfg"


@pytest.mark.parametrize("root", ["cfg", "cfg/data.yaml"])
def test_labels_and_lists_outside_of_the_root_are_noticed(yolo_lists, tmp_path, root):
    write_image(tmp_path / "data/images/deep", Annotated("a.png", 64, 48))
    settings = data_settings("folder", tmp_path / root, tmp_path / "cache")
    before = load_dataset(settings, "train").source
    assert [len(before[i].labels) for i in range(2)] == [1, 1]
    for number in range(2):
        change(tmp_path / f"data/labels/{number}.txt", "1 0.5 0.5 0.4 0.4\n")
    after = load_dataset(settings, "train").source
    assert [after[i].labels.tolist() for i in range(2)] == [[1], [1]]
    # A folder in that of the images is not read, however large it is.
    assert yolo.find(tmp_path / root).folders == (
        tmp_path / "cfg",
        *(tmp_path / f"data/{kind}/{n}.{end}" for kind, end in KINDS for n in range(3)),
        *(tmp_path / f"lists/{split}.txt" for split in ("train", "val")),
    )
    change(tmp_path / "lists/train.txt", f"{tmp_path}/data/images/1.png\n")
    assert len(load_dataset(settings, "train").source) == 1


@pytest.mark.parametrize("name", WRITERS)
def test_all_files_of_a_layout_are_noticed(tmp_path, name):
    WRITERS[name](tmp_path, SMALL)
    files = {str(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert set(stamp_files([tmp_path])) == files


def test_folders_outside_of_the_root_are_noticed(yolo_lists, tmp_path):
    text = f"train: {tmp_path}/data/images\nnames: [cat, dog]\n"
    (tmp_path / "cfg/data.yaml").write_text(text, encoding="utf-8")
    folders = (tmp_path / "cfg", tmp_path / "data/images", tmp_path / "data/labels")
    assert yolo.find(tmp_path / "cfg").folders == folders


def test_classes_in_a_readme_are_noticed(tmp_path):
    root, text = tmp_path / "data", "---\nx: {class_label: {names: {'0': %s, '1': %s}}}\n---\n"
    write_imagefolder(root, SMALL)
    for path in root.glob("*/metadata.jsonl"):
        numbered = path.read_text("utf-8").replace('"cat"', "0").replace('"dog"', "1")
        path.write_text(numbered, encoding="utf-8")
    (root / "README.md").write_text(text % ("cat", "dog"), encoding="utf-8")
    settings = data_settings("folder", root, tmp_path / "cache")
    assert load_dataset(settings, "train").categories.names == ("cat", "dog")
    change(root / "README.md", text % ("dog", "cat"))
    assert load_dataset(settings, "train").categories.names == ("dog", "cat")


def test_the_classes_of_a_project_are_noticed_where_the_root_is_one_dataset_of_it(tmp_path):
    write_supervisely(tmp_path / "project", SMALL)
    settings = data_settings("folder", tmp_path / "project/train", tmp_path / "cache")
    assert load_dataset(settings, "train").categories.names == ("cat", "dog")
    meta = tmp_path / "project/meta.json"
    content = json.loads(meta.read_text("utf-8"))
    change(meta, json.dumps(content | {"classes": content["classes"][::-1]}))
    assert load_dataset(settings, "train").categories.names == ("dog", "cat")


def test_files_and_folders_are_stamped(tmp_path):
    for name in ("a.txt", "inner/b.txt", "inner/.hidden", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text", encoding="utf-8")
    found = stamp_files([tmp_path / "inner", tmp_path / "a.txt"])
    assert found.keys() == {str(tmp_path / "inner/b.txt"), str(tmp_path / "a.txt")}
    assert {size for size, _ in found.values()} == {4}


@pytest.mark.parametrize(
    "name", ["train.tfrecord", "train.record-00003-of-00010", "label_map.pbtxt", "a.JPG", "data"]
)
def test_files_that_may_be_annotations_or_images_are_in_the_fingerprint(name):
    path = os.path.join("folder-of-00010", name)
    assert file_facts.fingerprint({path: (1, 1)}) != file_facts.fingerprint({path: (1, 2)})
    log = os.path.join("folder-of-00010", "run.log")
    assert file_facts.fingerprint({log: (1, 1)}) == file_facts.fingerprint({log: (1, 2)})
