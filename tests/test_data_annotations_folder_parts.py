"""Split folders with annotations beside them: what is 'train', what is left out and counted."""

import json
from pathlib import Path

import pytest
from layout_writers import (
    Annotated,
    Box,
    darwin_box,
    darwin_json,
    dota_line,
    labelme_json,
    voc_xml,
    write_image,
)

from retinanet_jax.data.annotations.folder_parts import BESIDE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.folder import FolderSettings, load_index
from retinanet_jax.data.formats.yolo_folders import LOOSE
from retinanet_jax.data.store.folder_index import FolderIndex

WIDTH, HEIGHT = 64, 48
# A name means different boxes in different folders, in pixels: x1, y1, x2, y2.
CORNERS = {
    "a.png": (4, 6, 24, 18),
    "b.png": (30, 8, 55, 46),
    "t.png": (10, 10, 40, 40),
    "x.png": (2, 20, 12, 47),
}


def box(name: str) -> Box:
    x1, y1, x2, y2 = CORNERS[name]
    return Box("car", x1, y1, x2 - x1, y2 - y1)


def image(name: str) -> Annotated:
    return Annotated(name, WIDTH, HEIGHT, (box(name),))


def kitti(name: str) -> str:
    corners = " ".join(map(str, CORNERS[name]))
    return f"car 0.00 0 -1.57 {corners} 1.5 1.6 3.9 1.8 1.4 8.4 0.01\n"


def visdrone(name: str) -> str:
    found = box(name)
    return f"{found.x},{found.y},{found.width},{found.height},1,4,0,0\n"


def yolo(name: str) -> str:
    x1, y1, x2, y2 = CORNERS[name]
    center = (x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT
    return " ".join(map(str, (0, *center, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)))


def darwin(name: str) -> str:
    return json.dumps(darwin_json(image(name), darwin_box(box(name))))


# Folders of the annotations and of the images, suffix and text of an annotation file.
LAYOUTS = {
    "darwin": ("annotations", "images", ".json", darwin),
    "voc": ("Annotations", "JPEGImages", ".xml", lambda name: voc_xml(image(name))),
    "labelme": ("labels", "images", ".json", lambda name: json.dumps(labelme_json(image(name)))),
    "kitti": ("label_2", "image_2", ".txt", kitti),
    "visdrone": ("annotations", "images", ".txt", visdrone),
    "dota": ("labelTxt", "images", ".txt", lambda name: dota_line(box(name))),
    "yolo": ("labels", "images", ".txt", yolo),
}
# Where the files of a split are: {0} is the folder of its annotations or images, {1} its own.
FORMS = ["{0}/{1}", "{1}", "{1}/{0}"]


def write(root: Path, layout: str, form: str, splits: dict[str, list[str]]) -> None:
    annotations, images, suffix, text = LAYOUTS[layout]
    for split, names in splits.items():
        for name in names:
            places = (form.format(folder, split).strip("/") for folder in (images, annotations))
            folder, annotated = (root / place for place in places)
            write_image(folder, image(name))
            path = annotated / Path(name).with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(name), encoding="utf-8")
    if layout == "yolo":
        (root / "classes.txt").write_text("car\n", encoding="utf-8")


@pytest.fixture
def load(tmp_path):
    """A function that reads a split of the folder 'data' as training does."""

    def load_split(split: str) -> FolderIndex:
        return load_index(FolderSettings(str(tmp_path / "data"), str(tmp_path / "cache")), split)

    return load_split


def corners_of(index: FolderIndex) -> dict[str, list[tuple]]:
    """By file name: the class, x1, y1, x2, y2 in pixels."""
    found = {}
    for record in index.records():
        found[Path(record.file_name).name] = [
            (index.categories.names[a.label], x, y, x + width, y + height)
            for a in record.annotations
            for x, y, width, height in [(round(side, 3) for side in a.bbox)]
        ]
    return found


def expected(*names: str) -> dict[str, list[tuple]]:
    return {name: [("car", *CORNERS[name])] for name in names}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_beside_the_folder_of_the_test_split_is_trained_on(tmp_path, load, layout, form):
    write(tmp_path / "data", layout, form, {"": ["a.png", "b.png"], "test": ["t.png"]})
    train, test = load("train"), load("auto")
    assert corners_of(train) == expected("a.png", "b.png")
    assert corners_of(test) == expected("t.png")
    assert not train.report.total and not test.report.total
    assert "without annotations" not in train.found


@pytest.mark.parametrize("extra", ["extra", ""])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_beside_a_split_to_train_on_is_counted(tmp_path, load, layout, form, extra):
    splits = {"train": ["a.png", "b.png"], "val": ["t.png"], extra: ["x.png"]}
    write(tmp_path / "data", layout, form, splits)
    train = load("train")
    assert corners_of(train) == expected("a.png", "b.png")
    assert corners_of(load("auto")) == expected("t.png")
    assert f"1 x {LOOSE if layout == 'yolo' else BESIDE}" in train.report.summary()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_datasets_beside_the_test_split_are_not_passed_over(tmp_path, load, layout):
    write(tmp_path / "data", layout, "{1}/{0}", {"site": ["a.png", "b.png"], "test": ["t.png"]})
    with pytest.raises(DataError, match=r"has a dataset in site/ .*, test/ "):
        load("train")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_whose_names_have_more_than_a_split_are_joined(tmp_path, load, layout):
    folders = {"train_day": ["a.png", "b.png"], "test": ["t.png"]}
    write(tmp_path / "data", layout, "{1}/{0}", folders)
    for name in folders if layout == "yolo" else ():
        (tmp_path / "data" / name / "classes.txt").write_text("car\n", encoding="utf-8")
    assert corners_of(load("train")) == expected("a.png", "b.png")
    assert corners_of(load("auto")) == expected("t.png")


@pytest.mark.parametrize("layout", ["voc", "kitti"])
def test_an_image_of_the_test_split_does_not_replace_a_missing_one(tmp_path, load, layout):
    write(tmp_path / "data", layout, "{0}/{1}", {"": ["a.png", "b.png"], "test": ["t.png"]})
    images = tmp_path / "data" / LAYOUTS[layout][1]
    (images / "a.png").rename(images / "test" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: No such file"):
        load("train")


@pytest.mark.parametrize("layout", ["dota", "kitti", "visdrone"])
def test_a_list_of_classes_beside_the_folders_does_not_hide_them(tmp_path, load, layout):
    splits = {"north": ["a.png"], "south": ["b.png"], "test": ["t.png"]}
    write(tmp_path / "data", layout, "{0}/{1}", splits)
    (tmp_path / "data" / LAYOUTS[layout][0] / "notes.txt").write_text("car\n", encoding="utf-8")
    assert corners_of(load("train")) == expected("a.png", "b.png")
    assert corners_of(load("auto")) == expected("t.png")


def test_a_link_to_a_split_is_not_left_out(tmp_path, load):
    write(tmp_path / "data", "voc", "{0}/{1}", {"train": ["a.png", "b.png"], "val": ["t.png"]})
    (tmp_path / "data" / "Annotations" / "all").symlink_to("train", target_is_directory=True)
    assert not load("train").report.total


@pytest.mark.parametrize("name", ["a.XML", "a.png.xml"])
def test_two_annotation_files_of_an_image_are_an_error(tmp_path, load, name):
    write(tmp_path / "data", "voc", "{1}", {"train": ["a.png", "b.png"], "val": ["t.png"]})
    (tmp_path / "data" / "train" / name).write_text(voc_xml(image("a.png")), encoding="utf-8")
    with pytest.raises(DataError, match=r"'train/a\.png' is used twice"):
        load("train")
