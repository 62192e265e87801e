"""A folder read in place: splits, categories, the index, and what is noticed when files change."""

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_settings import data_settings
from PIL import Image

from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.data import folder as folder_module
from retinanet_jax.data.annotations import json_stream
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import find_layout
from retinanet_jax.data.index_builder import ALSO_TRAINED
from retinanet_jax.data.mix import load_datasets, load_training_set
from retinanet_jax.data.store import file_facts
from retinanet_jax.data.store.prepare_folder import prepare_folder

ROOT = Path(__file__).resolve().parent.parent
SIZE = (30, 40)


def write_image(path: Path, seed: int, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def coco_content(names, classes=("dog", "cat"), first_id=1) -> dict:
    """Image i has i boxes, of all classes in turn."""
    categories = [{"id": first_id + k, "name": name} for k, name in enumerate(classes)]
    images, annotations = [], []
    for i, name in enumerate(names):
        images.append({"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for k in range(i):
            box = [k, k, 9.5, 7.25]
            category = first_id + k % len(classes)
            entry = {
                "id": len(annotations) + 1,
                "image_id": i,
                "category_id": category,
                "bbox": box,
            }
            annotations.append(entry)
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco_folder(root: Path, splits=("train", "val"), count=6, **fields) -> Path:
    (root / "annotations").mkdir(parents=True)
    for number, split in enumerate(splits):
        names = [f"{split}_{chr(97 + i)}.jpg" for i in range(count)]
        for i, name in enumerate(names):
            write_image(root / "images" / name, 100 * number + i)
        path = root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(coco_content(names, **fields)))
    return root


@pytest.fixture
def folder(tmp_path):
    return write_coco_folder(tmp_path / "data")


@pytest.fixture
def settings(folder, tmp_path):
    return data_settings("folder", folder, tmp_path / "cache", eval_split="auto")


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def ids(dataset) -> list[int]:
    return [dataset.source.image_id(i) for i in range(len(dataset.source))]


def test_what_is_found_is_described(settings, folder):
    write_image(folder / "images/extra.jpg", 1)
    found = load_dataset(settings, "train").found
    assert "COCO JSON; splits on disk: train, val" in found
    assert "train: 6 images, 1 of them without boxes, 15 boxes: dog 9, cat 6" in found
    assert "1 image files without annotations: extra.jpg" in found


def test_a_split_that_no_use_has_is_named(tmp_path):
    root = write_coco_folder(tmp_path / "data", splits=("train", "vall"), count=30)
    settings = data_settings("folder", root, tmp_path / "cache", eval_split="auto")
    found = load_dataset(settings, "train").found
    assert "not used: vall (--config.data.eval_split=vall evaluates on it)" in found
    settings.eval_split = "vall"
    assert "not used" not in load_dataset(settings, "train").found
    assert len(load_dataset(settings, "vall").source) == 30


def test_a_class_that_only_validation_has_may_be_misspelled(settings, folder):
    def misspell(content):
        content["categories"][1]["name"] = "cats"

    edit(folder / "annotations/instances_val.json", misspell)
    notes = load_dataset(settings, "train").notes
    assert "1 of 3 classes have no box and are not learned: cats (misspelled cat?)" in notes


def test_images_of_both_splits_are_counted(settings, folder):
    assert not load_dataset(settings, "auto").report.counts
    path = folder / "annotations/instances_val.json"
    edit(path, lambda content: content["images"][2].update(file_name="train_c.jpg"))
    report = load_dataset(settings, "auto").report
    assert report.to_json() == {
        ALSO_TRAINED: {"count": 1, "names": [str(folder / "images/train_c.jpg")]}
    }
    assert not load_dataset(settings, "train").report.counts


def test_ignored_objects_are_counted_apart(settings, folder):
    def ignore(content):
        for annotation in content["annotations"]:
            annotation["iscrowd"] = int(annotation["image_id"] == 5)

    edit(folder / "annotations/instances_train.json", ignore)
    found = load_dataset(settings, "train").found
    wanted = "6 images, 2 of them without boxes, 10 boxes: dog 6, cat 4; 5 ignored: crowds or diff"
    assert wanted in found


@pytest.mark.parametrize("on_disk", ["val", "valid", "validation", "test", "val2017", "VALID"])
@pytest.mark.parametrize("wanted", ["auto", "validation", "val"])
def test_the_split_to_evaluate_on_is_found_by_itself(tmp_path, on_disk, wanted):
    root = write_coco_folder(tmp_path / "data", ("train", on_disk), count=2)
    settings = data_settings("folder", root, tmp_path / "cache", eval_split=wanted)
    train, evaluated = load_dataset(settings, "train"), load_dataset(settings, wanted)
    assert len(train.source) == len(evaluated.source) == 2
    names = {image["file_name"] for image in evaluated.ground_truth()["images"]}
    assert names == {f"{on_disk}_a.jpg", f"{on_disk}_b.jpg"}


def test_a_split_that_is_not_there_is_an_error(settings, folder):
    settings.eval_split = "testing"
    with pytest.raises(DataError, match=r"data: has no split 'testing'; use one of train, val"):
        load_dataset(settings, "testing")


@pytest.mark.parametrize("has_yaml", [False, True])
def test_a_split_without_labels_is_not_evaluated_on(tmp_path, has_yaml):
    root = tmp_path / "data"
    for number in range(20):
        write_image(root / f"images/train/{number}.jpg", number)
        label_file = root / f"labels/train/{number}.txt"
        label_file.parent.mkdir(parents=True, exist_ok=True)
        label_file.write_text("0 0.5 0.5 0.2 0.2\n")
    write_image(root / "images/test/t.jpg", 99)
    if has_yaml:
        yaml = "train: images/train\ntest: images/test\nnames: [cat]\n"
        (root / "data.yaml").write_text(yaml)
    settings = data_settings("folder", root, tmp_path / "cache", eval_split="auto")
    evaluated = load_dataset(settings, "auto")
    assert len(evaluated.ground_truth()["annotations"]) == len(evaluated.source) > 0
    assert "splits on disk: train; left out without annotations: test" in evaluated.found
    settings.eval_split = "test"
    message = "has no annotation for the images of split 'test'; use one of train"
    with pytest.raises(DataError, match=message):
        load_dataset(settings, "test")
    (root / "labels/test").mkdir()
    (root / "labels/test/t.txt").write_text("")  # labelled: it has no object
    assert len(load_dataset(settings, "test").source) == 1


def test_without_a_validation_split_images_are_held_out(tmp_path):
    root = write_coco_folder(tmp_path / "data", ("train",), count=20)
    settings = data_settings("folder", root, tmp_path / "cache", eval_split="auto", val_share=0.3)
    train, held_out = load_dataset(settings, "train"), load_dataset(settings, "auto")
    assert not set(ids(train)) & set(ids(held_out))
    assert sorted(ids(train) + ids(held_out)) == list(range(20)) and 2 < len(held_out.source) < 11
    assert "without the 30% held out for validation" in train.found
    assert {i["id"] for i in held_out.ground_truth()["images"]} == set(ids(held_out))
    settings.val_share = 0.0
    assert len(load_dataset(settings, "train").source) == 20
    with pytest.raises(DataError, match=r"has no split 'auto'.*data\.val_share=0\.1"):
        load_dataset(settings, "auto")
    settings.train_split, settings.eval_split = "train[:90%]", "train[90%:]"
    assert len(load_dataset(settings, "train[90%:]").source) == 2  # nothing is held out then


def test_categories_are_those_of_the_training_split_for_all_splits(tmp_path):
    """Other order, other ids, or a class less: matched by name."""
    root = write_coco_folder(tmp_path / "data", count=4)
    path = root / "annotations/instances_val.json"
    for classes in (("cat", "dog"), ("cat",)):
        names = [f"val_{letter}.jpg" for letter in "abcd"]
        path.write_text(json.dumps(coco_content(names, classes, first_id=5)))
        settings = data_settings("folder", root, tmp_path / "cache")
        train, evaluated = load_dataset(settings, "train"), load_dataset(settings, "val")
        assert train.categories == evaluated.categories
        assert train.categories.names == ("dog", "cat") and train.categories.ids == (1, 2)
        number = ids(evaluated).index(1)
        assert evaluated.source[number].labels.tolist() == [1]  # its first class is a cat
        truth = evaluated.ground_truth()["annotations"]
        assert [a["category_id"] for a in truth if a["image_id"] == 1] == [2]


def test_errors_of_all_objects_are_shown_in_place_of_their_missing_classes(tmp_path):
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data/a.jpg", 0)
    rows = "filename,class,xmin,ymin,xmax,ymax\n" + 2 * "a.jpg,cat,1px,2px,9px,8px\n"
    (tmp_path / "data/boxes.csv").write_text(rows)
    settings = data_settings("folder", tmp_path / "data", tmp_path / "cache")
    with pytest.raises(DataError, match=r"(?s)has 2 errors;.*line 2: the box is '1px 2px 9px 8px'"):
        load_dataset(settings, "train")
    settings.on_error = "skip"
    with pytest.raises(DataError, match=r"no object has a class; .*2 x box: boxes\.csv: line 2, l"):
        load_dataset(settings, "train")


def test_the_index_is_read_while_nothing_changes(settings, folder, monkeypatch):
    for split in ("train", "auto"):
        first = load_dataset(settings, split)
        monkeypatch.setattr(json_stream, "load", lambda *_: pytest.fail("annotations are read"))
        monkeypatch.setattr(file_facts, "_inspect", lambda _: pytest.fail("an image is decoded"))
        again = load_dataset(settings, split)
        monkeypatch.undo()
        assert first.ground_truth() == again.ground_truth() and first.found == again.found
        for i in range(len(first.source)):
            for ours, theirs in zip(first.source[i], again.source[i], strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_the_folder_itself_is_only_read(settings, folder):
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    load_dataset(settings, "train").source[0]
    assert before == sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))


def test_a_missing_image_has_one_fix(settings, folder):
    (folder / "images/train_c.jpg").unlink()
    with pytest.raises(DataError) as error:
        load_dataset(settings, "train")
    assert str(error.value).endswith(
        "images/train_c.jpg: No such file (folders, pipes and devices are not read); "
        "put the file there, leave the image out, or fix data.root"
    )


def test_a_missing_image_that_is_there_now_is_noticed(settings, folder):
    path = folder / "images/train_c.jpg"
    path.rename(folder / "away")
    settings.on_error = "skip"
    assert len(load_dataset(settings, "train").source) == 5
    (folder / "away").rename(path)
    assert len(load_dataset(settings, "train").source) == 6


def test_changed_pixels_and_annotations_are_noticed(settings, folder):
    before = load_dataset(settings, "train")
    number = ids(before).index(3)
    pixels = before.source[number].image
    write_image(folder / "images/train_d.jpg", 99)
    after = load_dataset(settings, "train")
    assert not np.array_equal(pixels, after.source[number].image)
    (folder / "images/train_d.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"image id 3: .*train_d\.jpg"):
        load_dataset(settings, "train")
    write_image(folder / "images/train_d.jpg", 3)
    path = folder / "annotations/instances_train.json"
    edit(path, lambda content: content["annotations"].pop())
    assert len(load_dataset(settings, "train").ground_truth()["annotations"]) == 14


def test_only_changed_images_are_decoded_again(settings, folder, monkeypatch):
    load_dataset(settings, "train")
    write_image(folder / "images/train_d.jpg", 99)
    decoded, inspect = [], file_facts._inspect
    monkeypatch.setattr(
        file_facts, "_inspect", lambda path: decoded.append(path.name) or inspect(path)
    )
    load_dataset(settings, "train")
    assert decoded == ["train_d.jpg"]


def test_the_cache_does_not_grow_with_edits(settings, folder, tmp_path):
    sizes = []
    for i in range(4):
        write_image(folder / "images/train_d.jpg", i)
        for split in ("train", "auto"):
            load_dataset(settings, split)
        sizes.append(sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()))
    assert sizes[0] == sizes[-1] and len(sizes[0]) == 4


def test_a_broken_or_read_only_cache_is_not_needed(settings, folder, tmp_path, caplog):
    expected = load_dataset(settings, "train").ground_truth()
    for path in (tmp_path / "cache").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:50])
    assert load_dataset(settings, "train").ground_truth() == expected
    (tmp_path / "file").write_text("")
    settings.cache_dir = str(tmp_path / "file")
    assert load_dataset(settings, "train").ground_truth() == expected
    assert "cannot be written" in caplog.text


def test_images_of_the_other_split_need_not_be_there(settings, folder):
    for path in (folder / "images").glob("train*"):
        path.unlink()
    assert len(load_dataset(settings, "auto").source) == 6


READ = """
import sys
sys.path.insert(0, "tests")
from data_settings import data_settings
from retinanet_jax.data.dataset import load_dataset
print(len(load_dataset(data_settings("folder", *sys.argv[1:]), "train").source))
"""


def test_two_processes_read_one_folder(folder, tmp_path):
    command = [sys.executable, "-c", READ, str(folder), str(tmp_path / "cache")]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in "ab"
    ]
    assert [p.communicate(timeout=120)[0].strip() for p in processes] == ["6", "6"]
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_threads_read_what_one_thread_reads(settings, folder):
    source = load_dataset(settings, "train").source
    expected = [source[i] for i in range(6)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.__getitem__, list(range(6)) * 5))
    for number, example in enumerate(found):
        np.testing.assert_array_equal(example.image, expected[number % 6].image)
    with pytest.raises(IndexError):
        source[6]


@pytest.mark.parametrize("exif, orientation", [("auto", 6), ("shown", 6), ("stored", 1)])
def test_pixels_sizes_and_boxes_are_of_the_turned_image(tmp_path, exif, orientation):
    root = write_coco_folder(tmp_path / "data", ("train", "val"), count=2)
    path = root / "images/train_b.jpg"
    write_image(path, 1, orientation=6)
    size = SIZE[::-1] if orientation == 6 else SIZE

    def change(content):
        content["images"][1].update(height=size[0], width=size[1])
        content["annotations"][0]["bbox"] = [1, 1, size[1] - 2, size[0] - 2]

    edit(root / "annotations/instances_train.json", change)
    settings = data_settings("folder", root, tmp_path / "cache", exif=exif)
    dataset = load_dataset(settings, "train")
    number = ids(dataset).index(1)
    example = dataset.source[number]
    assert dataset.source.image_size(number) == example.image.shape[:2] == size
    assert example.boxes.tolist() == [[1, 1, size[1] - 1, size[0] - 1]]
    assert ("EXIF orientation applied" in dataset.notes) == (exif == "auto")
    prepared = prepare_folder(settings, tmp_path / "tfds")
    again = load_dataset(data_settings("folder", prepared, tmp_path / "other"), "train")
    stored = again.source[ids(again).index(1)]
    np.testing.assert_array_equal(stored.image, example.image)
    np.testing.assert_allclose(stored.boxes, example.boxes, atol=1e-4)
    assert again.source.image_size(ids(again).index(1)) == size


def test_a_prepared_folder_reads_like_the_folder(settings, folder, tmp_path):
    prepared = prepare_folder(settings, tmp_path / "tfds")
    assert prepared == prepare_folder(settings, tmp_path / "tfds")
    stored = data_settings("folder", prepared, tmp_path / "other", eval_split="auto")
    for split in ("train", "auto"):
        ours, theirs = load_dataset(settings, split), load_dataset(stored, split)
        assert ours.categories == theirs.categories and sorted(ids(ours)) == sorted(ids(theirs))
        for image_id in ids(ours):
            a, b = (d.source[ids(d).index(image_id)] for d in (ours, theirs))
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
        key = lambda entry: entry["id"]  # noqa: E731
        for part in ("images", "annotations"):
            truths = [sorted(d.ground_truth()[part], key=key) for d in (ours, theirs)]
            assert truths[0] == truths[1]
    with pytest.raises(DataError, match="has no split 'test'; use one of train, val"):
        load_dataset(stored, "test")


def test_one_file_as_root_and_a_folder_in_a_folder(folder, tmp_path):
    file = folder / "annotations/instances_val.json"
    settings = data_settings("folder", file, tmp_path / "cache", eval_split="auto")
    total = sum(len(load_dataset(settings, split).source) for split in ("train", "auto"))
    assert total == 6
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer/README.md").write_text("An archive has texts beside its folder.")
    shutil.move(folder, tmp_path / "outer/inner")
    settings = data_settings("folder", tmp_path / "outer", tmp_path / "cache", eval_split="auto")
    dataset = load_dataset(settings, "train")
    assert len(dataset.source) == 6 and "in inner: COCO" in dataset.found


def test_splits_of_other_names_are_joined_by_the_flags_of_the_message(tmp_path):
    root = write_coco_folder(tmp_path / "data", splits=("first", "second", "third"))
    config = DataConfig("folder", str(root), cache_dir=str(tmp_path / "cache"))
    message = "has no split 'train'; use one of first, second, third; .*train_split=first"
    with pytest.raises(DataError, match=message) as error:
        load_training_set(config)
    (mix,) = re.findall('--config.data.mix="(.*)"', str(error.value))
    joined = dataclasses.replace(config, train_split="first", mix=ast.literal_eval(mix))
    assert len(load_training_set(joined).source) == 3 * 6 - 1  # one is held out


@pytest.mark.parametrize(
    "on_disk, train, evaluation",
    [
        (("valid", "test"), "valid", "test"),
        (("test", "dev-val", "other"), "other", "dev-val"),
        (("test", "dev", "unlabelled"), "unlabelled", "dev"),
    ],
)
def test_a_split_to_evaluate_on_is_not_among_those_to_train_on(
    tmp_path, on_disk, train, evaluation
):
    root = write_coco_folder(tmp_path / "data", splits=on_disk, count=2)
    settings = data_settings("folder", root, tmp_path / "cache", eval_split="auto")
    flags = f"write --config.data.train_split={train} --config.data.eval_split={evaluation} "
    with pytest.raises(DataError, match="has no split 'train'") as error:
        load_dataset(settings, "train")
    assert flags in str(error.value) and "mix" not in str(error.value)


def test_the_layout_that_a_folder_has_is_named_if_another_is_set(folder, tmp_path):
    settings = data_settings("folder", folder, tmp_path / "cache", layout="yolo")
    expected = "is not in the layout 'yolo' but in 'coco'; set data.layout=coco"
    with pytest.raises(DataError, match=expected):
        load_dataset(settings, "train")


def test_a_folder_without_annotations_is_described(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    settings = data_settings("folder", tmp_path / "data", tmp_path / "cache")
    with pytest.raises(DataError, match="data: has no files; name the folder of your images"):
        load_dataset(settings, "train")
    write_image(tmp_path / "data/a.jpg", 0)
    with pytest.raises(DataError, match="there is 1 image but no annotations"):
        load_dataset(settings, "train")
    monkeypatch.chdir(tmp_path)
    says = f"dta: does not exist in {tmp_path}; set --data (config.data.root) to the folder"
    with pytest.raises(DataError, match=re.escape(says)):
        load_dataset(data_settings("folder", Path("dta"), tmp_path / "cache"), "train")


def test_a_folder_without_a_layout_is_described(tmp_path):
    write_image(tmp_path / "data/pictures/a.jpg", 0)
    write_image(tmp_path / "data/b.png", 0)
    settings = data_settings("folder", tmp_path / "data", tmp_path / "cache")
    with pytest.raises(DataError, match="there are 2 images but no annotations"):
        load_dataset(settings, "train")
    (tmp_path / "data/notes.md").write_text("a note")
    with pytest.raises(
        DataError,
        match=r"(?s)no layout fits; there are pictures/ and 1 x \.jpg, 1 x \.md, 1 x \.png",
    ):
        load_dataset(settings, "train")


def test_images_of_which_none_has_an_object_are_counted(tmp_path):
    for name in "abc":
        write_image(tmp_path / f"data/images/{name}.jpg", 0)
    (tmp_path / "data/labels").mkdir()
    (tmp_path / "data/labels/a.txt").touch()
    settings = data_settings("folder", tmp_path / "data", tmp_path / "cache")
    with pytest.raises(DataError, match=r"no object has a class; .* \(.*2 x image without a l"):
        load_dataset(settings, "train")


@pytest.mark.parametrize(
    "name, fix",
    [
        ("export.zip", "extract them and set data.root"),
        ("train-00000-of-00001.parquet", "retinanet_jax.data.from_huggingface"),
        ("drive.mp4", "extract their frames"),
    ],
)
def test_files_that_are_not_read_are_named_with_a_way_to_read_them(tmp_path, name, fix):
    path = tmp_path / "data" / name
    path.parent.mkdir()
    path.write_bytes(b"x")
    for root in (path, path.parent):
        settings = data_settings("folder", root, tmp_path / "cache")
        with pytest.raises(DataError, match=f"such as {name} are not read; .*{fix}"):
            load_dataset(settings, "train")


def test_links_to_folders_are_followed_once(settings, folder, tmp_path):
    (folder / "images").rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", folder / "images")
    os.symlink(folder, folder / "circle")
    assert len(load_dataset(settings, "train").source) == 6
    path = tmp_path / "elsewhere/train_a.jpg"
    path.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"train_a\.jpg"):
        load_dataset(settings, "train")


def test_twelve_bits_of_sixteen_are_reported(settings, folder):
    path = folder / "images/train_a.jpg"
    pixels = np.random.default_rng(0).integers(0, 4096, SIZE).astype(np.uint16)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    assert "16-bit image that uses at most 12 bits" in load_dataset(settings, "train").notes
    path.write_bytes(cv2.imencode(".png", pixels * 16)[1].tobytes())
    assert "16-bit" not in load_dataset(settings, "train").notes


@pytest.mark.parametrize(
    "stated", ["C:\\data\\{}", "/home/me/data/{}", "../images/{}", "{}", "old/{}"]
)
def test_an_image_is_found_by_its_name_where_its_folder_is_another_one(tmp_path, stated):
    root = write_coco_folder(tmp_path / "data", count=3)
    for split in ("train", "val"):
        for image in (root / "images").glob(f"{split}_*.jpg"):
            place = root / "images" / split / "cam 1" / image.name.removeprefix(f"{split}_")
            place.parent.mkdir(parents=True, exist_ok=True)
            image.rename(place)  # a.jpg is in both splits

        def write_names(content):
            for number, entry in enumerate(content["images"]):
                entry["file_name"] = stated.format(f"{'abc'[number]}.jpg")

        edit(root / "annotations" / f"instances_{split}.json", write_names)
    settings = data_settings("folder", root, tmp_path / "cache", eval_split="auto")
    for wanted, split in (("train", "train"), ("auto", "val")):
        dataset = load_dataset(settings, wanted)
        assert len(dataset.source) == 3
        assert dataset.report.counts["images found by name in another folder"] == 3
        paths = {Path(path) for path in dataset.source._index.paths}
        assert {path.parent for path in paths} == {root / "images" / split / "cam 1"}


@pytest.mark.parametrize("stated", ["../outside.jpg", "/outside.jpg", "C:\\outside.jpg"])
def test_no_name_leads_out_of_the_folder(tmp_path, stated):
    root = write_coco_folder(tmp_path / "data", ("train",), count=2)
    write_image(tmp_path / "outside.jpg", 0)
    stated = stated.replace("/outside", f"{tmp_path}/outside", 1) if stated[0] == "/" else stated
    path = root / "annotations" / "instances_train.json"
    edit(path, lambda content: content["images"][0].update(file_name=stated))
    settings = data_settings("folder", root, tmp_path / "cache", eval_split="auto")
    with pytest.raises(DataError, match="leads out of the image folder"):
        load_dataset(settings, "train")


def test_two_splits_of_one_start_share_the_reading_of_annotations(settings, monkeypatch):
    read, scanned, settings.mix = [], [], ()
    coco = find_layout.FINDERS["coco"]

    def counted(root):
        layout = coco(root)
        return layout._replace(read=lambda *given: read.append(given[0]) or layout.read(*given))

    stamp_files = file_facts.stamp_files
    monkeypatch.setitem(find_layout.FINDERS, "coco", counted)
    monkeypatch.setattr(folder_module, "stamp_files", lambda f: scanned.append(f) or stamp_files(f))
    train, evaluated = load_datasets(settings)
    assert read == ["train", "val", "val"] and len(scanned) == 1
    assert train.categories == evaluated.categories and len(evaluated.source) == 6
    load_datasets(settings)
    assert len(read) == 3 and len(scanned) == 2  # the next start looks for changes again


def test_folders_of_systems_are_not_read(tmp_path):
    """A Synology disk keeps thumbnails of each image in @eaDir, deleted files in #recycle."""
    write_image(tmp_path / "data/images/a.jpg", 0)
    (tmp_path / "data/labels").mkdir()
    (tmp_path / "data/labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    settings = data_settings("folder", tmp_path / "data", tmp_path / "cache", val_share=0.0)
    before = load_dataset(settings, "train").found
    write_image(tmp_path / "data/images/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", 1)
    write_image(tmp_path / "data/images/#recycle/b.jpg", 2)
    dataset = load_dataset(settings, "train")
    assert len(dataset.source) == 1 and dataset.found == before
    stamped = file_facts.stamp_files([tmp_path / "data"])
    assert sorted(Path(path).name for path in stamped) == ["a.jpg", "a.txt"]


@pytest.mark.parametrize("named", ["train_zip", "test_zip"])
def test_class_numbers_of_one_split_are_not_classes_beside_the_names_of_another(tmp_path, named):
    for split in ("train_zip", "test_zip"):
        write_image(tmp_path / "data" / split / "images" / f"{split}.jpg", 0)
        path = tmp_path / "data" / split / "labels" / f"{split}.txt"
        path.parent.mkdir()
        path.write_text("1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data" / named / "classes.txt").write_text("cat\ndog\n")
    settings = data_settings("folder", tmp_path / "data", tmp_path / "cache")
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"its classes are the numbers '1'.* 'cat, dog'.*both"):
            load_dataset(settings, split)
    for split in ("train_zip", "test_zip"):
        (tmp_path / "data" / split / "classes.txt").write_text("cat\ndog\n")
    assert load_dataset(settings, "train").categories.names == ("cat", "dog")
