"""Where in a folder the dataset is, if texts, scripts or further datasets are beside it."""

import shutil

import numpy as np
import pytest
from layout_writers import (
    FURTHER_WRITERS,
    SMALL,
    WRITERS,
    Annotated,
    voc_xml,
    write_coco,
    write_datumaro,
    write_image,
    write_labelme,
    write_sagemaker,
    write_yolo,
    write_yolo_darknet,
    write_yolo_roboflow,
)
from raw_reading import boxes, expected, read

from retinanet_jax.cli.outputs import CocoWriter, CsvWriter
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.find_layout import describe_layout, find_layout
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.results import ImageDetections


@pytest.fixture
def repository(tmp_path):
    """A folder with a script, a text and an image, and no dataset yet."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/train.py").write_text("pass\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("A detector of cats.\n", encoding="utf-8")
    write_image(tmp_path, Annotated("example.png", 64, 48))
    return tmp_path


@pytest.mark.parametrize("place", ["pets", "data/pets", "data/deep/pets"])
def test_the_one_dataset_of_a_repository_is_found(repository, place):
    write_yolo_roboflow(repository / place, SMALL)
    found = find_layout(repository)
    assert found.place == repository / place and set(found.layout.splits) == {"train", "val"}
    assert f", in {place}: YOLO as exported by Roboflow" in describe_layout(repository, found)


def test_several_datasets_are_named(repository):
    write_yolo_roboflow(repository / "one", SMALL)
    write_yolo(repository / "two", SMALL)
    wanted = r"in one/ \(YOLO as exported by Roboflow\), two/ \(YOLO with a YAML file\); set data"
    with pytest.raises(DataError, match=wanted):
        find_layout(repository)


@pytest.mark.parametrize("inner", ["", "{}"])
def test_folders_that_are_named_as_splits_are_one_dataset(repository, inner):
    """As two archives with a split each, extracted into folders of their own."""
    for split, folder in (("train", "train_zip"), ("val", "Pets-Validation")):
        place = repository / folder / inner.format(split)
        for image in SMALL[split]:
            write_image(place, image)
            (place / image.file_name).with_suffix(".xml").write_text(voc_xml(image))
    found = find_layout(repository)
    assert (found.place, found.layout.name) == (repository, "voc")
    assert set(found.layout.splits) == {"train", "validation"}
    for split, name in (("train", "train"), ("val", "validation")):
        assert boxes(read(lambda _: found.layout, repository, name)) == expected(SMALL, split)
    # The images may be in archives of their own, too.
    (repository / "images").mkdir()
    for path in list(repository.rglob("?*.png")):
        path.rename(repository / "images" / path.name)
    found = find_layout(repository)
    images = read(lambda _: found.layout, repository, "validation").images
    assert [image.path for image in images] == [repository / "images/d.png"]


def test_folders_of_splits_in_different_layouts_are_different_datasets(repository):
    write_labelme(repository / "Pets-Validation", {"val": SMALL["val"]})
    write_yolo_roboflow(repository / "train_zip", {"train": SMALL["train"]})
    with pytest.raises(DataError, match=r"has a dataset in Pets-Validation/ .*, train_zip/"):
        find_layout(repository)


def test_folders_with_splits_are_not_joined_to_one_dataset(repository):
    for place in ("one", "two"):
        write_yolo_roboflow(repository / place, SMALL)
        (repository / place / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"one/ \(YOLO in folders\), two/ \(YOLO in folders\)"):
        find_layout(repository)


def test_a_broken_dataset_beside_it_leaves_the_choice_to_the_user(repository):
    write_yolo_roboflow(repository / "one", SMALL)
    (repository / "two").mkdir()
    (repository / "two/data.yaml").write_text("train: no\nnames: [cat]\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"has a dataset in one/ \(YOLO as exported by Roboflow\);"):
        find_layout(repository)
    shutil.rmtree(repository / "one")
    with pytest.raises(DataError, match=r"two/data.yaml: train: 'no' does not exist"):
        find_layout(repository)


def test_a_broken_layout_is_not_passed_over_for_a_later_one(tmp_path):
    write_yolo(tmp_path, SMALL)
    text = (tmp_path / "data.yaml").read_text(encoding="utf-8")
    (tmp_path / "data.yaml").write_text(text.replace("images/train", "images/trein"))
    (tmp_path / "summary.csv").write_text("filename,xmin,ymin,xmax,ymax\na.png,1,2,3,4\n")
    wanted = r"data\.yaml: train: 'images/trein' .*; or set data\.layout=csv to read CSV instead"
    with pytest.raises(DataError, match=wanted):
        find_layout(tmp_path)
    assert find_layout(tmp_path, "csv").layout.name == "csv"


@pytest.mark.parametrize(
    "name, pattern, folder",
    [
        ("csv", "*.csv", "data"),
        ("via", "*.json", "json"),
        ("voc", "*.xml", "Annotation"),
        ("labelme", "*.json", "ann"),
    ],
)
def test_annotations_may_be_in_any_folder_beside_the_images(tmp_path, name, pattern, folder):
    one = {"train": [image for image in SMALL["train"] if image.boxes]}
    WRITERS[name](tmp_path / "written", one)
    root = tmp_path / "dataset"
    for path in (tmp_path / "written").rglob("*.png"):
        write_image(root / "images", next(im for im in one["train"] if im.file_name == path.name))
    (root / folder).mkdir()
    for path in (tmp_path / "written").rglob(pattern):
        shutil.copy(path, root / folder / path.name)
    found = find_layout(root)
    assert (found.layout.name, found.place) == (name, root)
    assert len(read(lambda root: found.layout, root).images) == 2
    assert all(image.path.is_file() for image in read(lambda root: found.layout, root).images)


@pytest.mark.parametrize(
    "name, text, state",
    [
        ("annotations.json", "", "is empty"),
        ("annotations.json", '{"version": 3, "shots": []}', "has the keys version, shots"),
        ("annotations.json", '[{"shot": 3}]', "is a list of entries with the keys shot"),
        ("boxes.csv", "picture,a,b\n", "begins with 'picture,a,b', without known columns for"),
        ("x/boxes.xml", "<?xml version='1.0'?><shots/>", "begins with <shots>"),
    ],
)
def test_what_a_file_has_that_fits_no_layout_is_said(tmp_path, name, text, state):
    write_image(tmp_path / "images", Annotated("a.png", 64, 48))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"no layout fits; .*{name} {state}"):
        find_layout(tmp_path)
    with pytest.raises(DataError, match=rf"no layout fits; .*{name.split('/')[-1]} {state}"):
        find_layout(tmp_path / name)


@pytest.mark.parametrize("name", ["yolo_darknet", "datumaro", "csv", "image_list"])
@pytest.mark.parametrize("inner", ["", "found"])
def test_detections_are_not_annotations(tmp_path, name, inner):
    WRITERS[name](tmp_path, SMALL)
    before = find_layout(tmp_path).layout
    (tmp_path / inner).mkdir(exist_ok=True)
    image = next(tmp_path.rglob("*.png"))
    categories = Categories(("cat",), (1,))
    box, score, label = np.float32([[1, 2, 4, 6]]), np.float32([0.9]), np.int32([0])
    found = ImageDetections(box, score, label, categories, image, (48, 64))
    for writer in (CocoWriter, CsvWriter):
        with writer(tmp_path / inner, categories) as file:
            file.add(image, found)
    after = find_layout(tmp_path).layout
    assert (after.name, after.splits) == (before.name, before.splits)
    # Named itself, it is read.
    assert find_layout(tmp_path / inner / "detections.coco.json").layout.name == "coco"


@pytest.mark.parametrize("place", ["export", "data/export"])
def test_a_darknet_export_in_a_folder_keeps_its_classes_and_splits(repository, place):
    write_yolo_darknet(repository / place, SMALL)
    found = find_layout(repository)
    assert found.place == repository / place
    assert set(found.layout.splits) == set(find_layout(repository / place).layout.splits)
    assert len(found.layout.splits) == len(SMALL)


def test_a_layout_with_a_training_split_goes_first(tmp_path):
    write_datumaro(tmp_path, SMALL)
    write_coco(tmp_path / "coco", SMALL)
    (tmp_path / "coco/annotations/instances_val.json").rename(
        tmp_path / "annotations/instances_val.json"
    )
    shutil.rmtree(tmp_path / "coco")
    found = find_layout(tmp_path)
    assert found.layout.name == "datumaro" and set(found.layout.splits) == {"train", "val"}
    assert "--config.data.layout=coco would read" in describe_layout(tmp_path, found)


@pytest.mark.parametrize("name", ["mot", "oidv4", "crowdhuman", "vott", "cloud_jsonl"])
@pytest.mark.parametrize("other", ["coco", "yolo_roboflow", "image_list"])
def test_a_conversion_in_another_folder_is_preferred(tmp_path, name, other):
    (WRITERS | FURTHER_WRITERS)[name](tmp_path / "data/raw", SMALL)
    WRITERS[other](tmp_path / "work/deep/converted", SMALL)
    found = find_layout(tmp_path)
    assert found.place == tmp_path / "work/deep/converted"
    assert other.startswith(found.layout.name)
    assert find_layout(tmp_path, name).place == tmp_path / "data/raw"


def test_a_list_beside_a_dataset_in_a_folder_is_named(tmp_path):
    write_sagemaker(tmp_path, SMALL)
    write_coco(tmp_path / "old/export", SMALL)
    found = find_layout(tmp_path)
    assert (found.layout.name, found.place) == ("coco", tmp_path / "old/export")
    named = f"layout=sagemaker would read SageMaker Ground Truth manifest in {tmp_path} instead"
    assert named in describe_layout(tmp_path, found)
    assert find_layout(tmp_path, "sagemaker").place == tmp_path
