"""VisDrone-DET: lines of numbers, what is ignored and for which classes, releases as splits."""

import pytest
from layout_writers import SMALL, Annotated, write_image, write_visdrone
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations import label_lines
from retinanet_jax.data.annotations.raw import EVERY_CLASS
from retinanet_jax.data.annotations.split_names import resolve_splits
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import visdrone, yolo
from retinanet_jax.data.formats.find_layout import find_layout

CAR = "684,8,27,16,1,4,0,0\n"
# Of the toolkit's README: what a category and a score stand for.
CATEGORIES = {1: "pedestrian", 2: "people", 3: "bicycle", 4: "car", 5: "van", 6: "truck"}
CATEGORIES |= {7: "tricycle", 8: "awning-tricycle", 9: "bus", 10: "motor"}


@pytest.fixture
def folder(tmp_path):
    """A function that writes annotations/a.txt for images/a.jpg in a release's folder."""

    def write(text: str, release: str = "VisDrone2019-DET-train"):
        write_image(tmp_path / release / "images", Annotated("a.jpg", 64, 48))
        path = tmp_path / release / "annotations" / "a.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def objects(root, **keywords):
    return read(visdrone.find, root, "train", **keywords).images[0].objects


def test_the_folders_of_releases_are_splits(tmp_path):
    write_visdrone(tmp_path, SMALL)
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.tool, set(layout.splits)) == (
        "visdrone",
        "VisDrone-DET",
        {"train", "val"},
    )
    names = {"cat": "car", "dog": "van"}
    for split in SMALL:
        content = read(visdrone.find, tmp_path, split)
        wanted = expected(SMALL, split)
        assert boxes(content) == {
            file: [(names[name], *box) for name, *box in found] for file, found in wanted.items()
        }
        assert all(image.path.is_file() for image in content.images)
        assert content.class_names == tuple(CATEGORIES.values())


def test_the_annotated_test_images_are_a_split_to_evaluate_on(tmp_path):
    write_visdrone(tmp_path, {"train": SMALL["train"], "test-dev": SMALL["val"]})
    write_image(tmp_path / "VisDrone2019-DET-test-challenge" / "images", Annotated("t.jpg", 64, 48))
    layout = visdrone.find(tmp_path)
    assert set(layout.splits) == {"train", "test-dev"}
    assert resolve_splits("train", "auto", layout.splits).evaluation == "test-dev"


@pytest.mark.parametrize(
    "place, split",
    [("VisDrone2019-DET-val", "val"), ("VisDrone2018-DET-train", "train"), ("drone", "train")],
)
def test_a_release_may_be_the_folder_itself(tmp_path, place, split):
    write_visdrone(tmp_path, {"train": SMALL["train"]})
    root = (tmp_path / "VisDrone2019-DET-train").rename(tmp_path / place)
    assert visdrone.find(root).splits == (split,)


def test_a_release_may_be_in_a_folder_of_its_own_name(tmp_path):
    inner = tmp_path / "VisDrone2019-DET-train"
    write_visdrone(inner, {"train": SMALL["train"]})
    assert len(read(visdrone.find, tmp_path).images) == 3
    assert visdrone.find(tmp_path).splits == ("train",)


def test_two_releases_of_a_split_are_an_error(tmp_path):
    write_visdrone(tmp_path, {"train": SMALL["train"]})
    (tmp_path / "VisDrone2019-DET-train").rename(tmp_path / "VisDrone2018-DET-train")
    write_visdrone(tmp_path, {"train": SMALL["train"]})
    with pytest.raises(DataError, match="both VisDrone2018-DET-train/ and VisDrone2019-DET-train/"):
        visdrone.find(tmp_path)


def test_each_category_has_its_class(folder):
    root = folder("".join(CAR.replace(",4,", f",{number},") for number in CATEGORIES))
    assert [o.class_name for o in objects(root)] == list(CATEGORIES.values())
    assert {(o.box, o.crowd) for o in objects(root)} == {((684, 8, 27, 16), False)}


@pytest.mark.parametrize("line", ["5,6,7,8,0,0,0,0\n", "5,6,7,8,1,11,0,0\n", "5,6,7,8,0,11,0,0,\n"])
def test_ignored_regions_and_others_are_ignored_for_each_class(folder, line):
    found = objects(folder(CAR + line))
    assert [(o.class_name, o.crowd) for o in found[:1]] == [("car", False)]
    assert [(o.class_name, o.box, o.crowd) for o in found[1:]] == [
        (EVERY_CLASS, (5, 6, 7, 8), True)
    ]


def test_an_object_with_a_score_of_zero_is_ignored_in_its_class(folder):
    found = objects(folder(CAR + "5,6,7,8,0,4,0,0\n"))
    assert [(o.class_name, o.crowd) for o in found] == [("car", False), ("car", True)]


def test_lines_may_end_with_a_comma_and_have_spaces(folder):
    assert objects(folder("5, 6, 7, 8, 1, 9, 0, 0,\r\n\r\n"))[0].box == (5, 6, 7, 8)


def test_boxes_without_area_are_left_out_and_noted_with_their_line(folder):
    # The release has three of them.
    root = folder(CAR + "5,6,7,0,1,4,0,0\n5,6,0,8,0,0,0,0\n")
    content = read(visdrone.find, root)
    assert len(content.images[0].objects) == 1
    assert reasons(content) == {label_lines.NO_AREA: 2}
    assert [where.rsplit("/")[-1] for _, where in content.notes] == [
        "a.txt: line 2",
        "a.txt: line 3",
    ]


@pytest.mark.parametrize(
    "bad, message",
    [
        ("5,6,7,8,1,4,0\n", "line 2: is '5,6,7,8,1,4,0'; write x,y,width,height,score,category"),
        ("1,0,5,6,7,8,1,4,0,0\n", "line 2: is '1,0,5,6,7,8"),  # frames of a video
        ("5,6,x,8,1,4,0,0\n", "line 2: is '5,6,x"),
        ("5,6,nan,8,1,4,0,0\n", "line 2: is '5,6,nan"),
        ("5,6,7,8,1,12,0,0\n", "line 2: category is 12; write 1 to 10, 0 for an ignored region"),
        ("5,6,7,8,1,1.5,0,0\n", "line 2: category is 1.5"),
        ("5,6,7,8,0.7,4,0,0\n", "line 2: score is 0.7; write 1, or 0"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder(CAR + bad)
    with pytest.raises(DataError) as error:
        read(visdrone.find, root)
    assert message in str(error.value) and "a.txt" in str(error.value)
    assert len(objects(root, on_error="skip")) == 1


def test_a_missing_image_is_named_as_a_jpeg(folder):
    root = folder(CAR)
    (root / "VisDrone2019-DET-train/images/a.jpg").unlink()
    assert read(visdrone.find, root).images[0].path.name == "a.jpg"


def test_annotations_of_videos_and_yolo_labels_are_not_visdrone(tmp_path, folder):
    root = folder("1,0,5,6,7,8,1,4,0,0\n", "VisDrone2019-VID-train")
    assert visdrone.find(root) is None
    assert visdrone.find(root / "VisDrone2019-VID-train") is None
    assert yolo.find(folder(CAR)) is None
