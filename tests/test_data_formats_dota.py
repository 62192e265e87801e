"""DOTA's labels: quadrilaterals, difficult objects, the folders of releases and tools."""

from collections import Counter

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    datumaro_export,
    dota_line,
    write_dota,
    write_image,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations import label_lines, outlines
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import dota, yolo
from retinanet_jax.data.formats.find_layout import find_layout

HEADER = "imagesource:GoogleEarth\ngsd:0.146343590398\n"
SHIP = "20 10 30 20 20 30 10 20 ship 0\n"
PLANE = dota_line(Box("plane", 4, 6, 20, 12))


@pytest.fixture
def folder(tmp_path):
    """A function that writes labels for images/a.png, in a folder of the name."""

    def write(text: str, name: str = "labelTxt", root=tmp_path, stem: str = "a"):
        write_image(root / "images", Annotated(f"{stem}.png", 64, 48))
        path = root / name / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return root

    return write


def objects(root, split="train", **keywords):
    return read(dota.find, root, split, **keywords).images[0].objects


def test_split_folders_are_read(tmp_path):
    write_dota(tmp_path, SMALL)
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.tool) == ("dota", "DOTA labels in labelTxt")
    for split in SMALL:
        content = read(dota.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert all(image.path.is_file() for image in content.images)
        assert content.notes == ()  # upright boxes are exact


def test_the_box_around_a_rotated_quadrilateral_is_taken_and_noted(folder):
    content = read(dota.find, folder(HEADER + SHIP + PLANE))
    assert [(o.class_name, o.box) for o in content.images[0].objects] == [
        ("ship", (10, 10, 20, 20)),
        ("plane", (4, 6, 20, 12)),
    ]
    assert reasons(content) == {outlines.ROTATED: 1}


@pytest.mark.parametrize(
    "difficult, crowd", [("", False), (" 0", False), (" 1", True), (" 2", True)]
)
def test_difficult_objects_are_ignored_regions_of_their_class(folder, difficult, crowd):
    found = objects(folder(HEADER + SHIP + dota_line(Box("ship", 1, 2, 3, 4), difficult)))
    assert [(o.class_name, o.crowd) for o in found] == [("ship", False), ("ship", crowd)]


def test_a_category_may_have_several_words(folder):
    found = objects(folder(SHIP.replace("ship", "cargo ship") + SHIP.replace("ship", "pier 39")))
    assert [(o.class_name, o.crowd) for o in found] == [("cargo ship", False), ("pier 39", False)]


@pytest.mark.parametrize(
    "text",
    [
        SHIP,
        "\ufeff" + HEADER + SHIP,
        "imagesource:GF-2\n\ngsd:null\n" + SHIP,
        "acquisition dates:2017-08-01\n" + HEADER + SHIP,
        "20.0 10.5 3e1 20 20 30 10 20 ship\r\n",
    ],
)
def test_lines_above_the_objects_are_no_objects(folder, text):
    assert [o.class_name for o in objects(folder(text))] == ["ship"]


@pytest.mark.parametrize(
    "name", ["labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "annfiles", "labels", "obb", "images"]
)
def test_the_folder_of_the_labels_may_have_any_of_its_names(folder, name):
    root = folder(HEADER + SHIP, name)
    layout = find_layout(root).layout
    assert layout.name == "dota"
    assert read(lambda root: layout, root).images[0].path.is_file()


def test_the_latest_of_two_releases_is_read_and_named(folder):
    for version in ("1.0", "1.5"):
        root = folder(SHIP.replace("ship", f"v{version}"), f"labelTxt-v{version}")
    assert dota.find(root).tool == "DOTA labels in labelTxt-v1.5"
    assert objects(root)[0].class_name == "v1.5"


@pytest.mark.parametrize(
    "labels, upright",
    [
        ("labelTxt-v1.0/labelTxt", "labelTxt-v1.0/Train_Task2_gt/trainset_reclabelTxt"),
        ("labelTxt-v1.5/DOTA-v1.5_train", "labelTxt-v1.5/DOTA-v1.5_train_hbb"),
    ],
)
def test_archives_of_labels_extracted_into_their_own_folders(folder, labels, upright):
    folder(HEADER + PLANE, upright)
    content = read(dota.find, folder(HEADER + SHIP, labels))
    assert [[o.class_name for o in image.objects] for image in content.images] == [["ship"]]
    assert content.images[0].path.is_file()


def test_labels_and_images_in_the_same_inner_folders(tmp_path, folder):
    folder(HEADER + SHIP, "labelTxt/harbour")
    (tmp_path / "images/harbour").mkdir()
    (tmp_path / "images/a.png").rename(tmp_path / "images/harbour/a.png")
    assert read(dota.find, tmp_path).images[0].path.is_file()


def test_crops_of_mmrotate_with_many_empty_ones_first(tmp_path, folder):
    for split in ("train", "val", "test"):
        for number in range(25):
            text = SHIP if number == 24 and split != "test" else ""
            folder(text, "annfiles", tmp_path / split, f"P0001__1024__{number * 824:05}___0")
    layout = find_layout(tmp_path).layout
    assert (layout.name, set(layout.splits)) == ("dota", {"train", "val"})
    images = read(dota.find, tmp_path).images
    assert len(images) == 25 and sum(len(image.objects) for image in images) == 1


def test_labels_that_ultralytics_converts(tmp_path):
    for split, images in SMALL.items():
        for image in images:
            write_image(tmp_path / "images" / split, image)
            path = tmp_path / "labels" / f"{split}_original" / image.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".txt").write_text("".join(map(dota_line, image.boxes)))
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.splits) == ("dota", ("train", "val"))
    for split in SMALL:
        content = read(dota.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert all(image.path.is_file() for image in content.images)


def test_objects_without_area_are_left_out_and_noted(folder):
    content = read(dota.find, folder(SHIP + "5 5 5 5 5 5 5 5 ship 0\n"))
    assert len(content.images[0].objects) == 1
    assert reasons(content) == {label_lines.NO_AREA: 1, outlines.ROTATED: 1}


@pytest.mark.parametrize(
    "bad, message",
    [
        ("1 2 3 4 5 6 7 ship 0\n", "line 2: is '1 2 3 4 5 6 7 ship 0'; write x1 y1 x2 y2 x3"),
        ("1 2 3 4 5 6 7 8\n", "line 2: is '1 2 3 4 5 6 7 8'"),
        ("1 2 3 4 5 6 7 inf ship 0\n", "line 2: is '1 2 3 4 5 6 7 inf"),
        ("1,2,3,4,5,6,7,8,ship,0\n", "line 2: is '1,2,3,4"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder(SHIP + bad)
    with pytest.raises(DataError) as error:
        read(dota.find, root)
    assert message in str(error.value) and "a.txt" in str(error.value)
    assert len(objects(root, on_error="skip")) == 1


def test_a_category_that_the_list_of_classes_lacks_is_an_error(folder):
    root = folder(SHIP + PLANE)
    (root / "classes.txt").write_text("ship\n")
    with pytest.raises(DataError, match="line 2: the class is 'plane'"):
        read(dota.find, root)


def test_yolo_and_dota_do_not_take_each_other_s_labels(folder):
    root = folder("12 10 30 20 20 30 10 20 ship 0\n", "labels")
    assert yolo.find(root) is None
    with pytest.raises(DataError, match="not in the layout 'yolo' but in 'dota'"):
        find_layout(root, "yolo")
    folder("0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3\n", "labels")
    assert dota.find(root) is None and yolo.find(root) is not None


def test_a_readme_beside_the_images_is_not_a_label_file(tmp_path):
    write_image(tmp_path, Annotated("a.png", 64, 48))
    (tmp_path / "README.txt").write_text("Provided by: a user\nLicense: CC0\n")
    assert dota.find(tmp_path) is None


def test_files_written_by_datumaro_read_back_equal(tmp_path):
    rotated = pytest.importorskip("datumaro.components.annotation").RotatedBbox
    datumaro_export(
        tmp_path,
        SMALL["train"],
        "dota",
        lambda b, label: rotated(
            b.x + b.width / 2, b.y + b.height / 2, b.width, b.height, 0, label=label
        ),
    )
    found = boxes(read(dota.find, tmp_path / "out"))
    assert {name: Counter(objects) for name, objects in found.items()} == {
        name: Counter(objects) for name, objects in expected(SMALL).items()
    }
