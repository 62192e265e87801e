"""GTSDB: lines of columns and rows, classes, images without signs, cut-outs of the same names."""

import cv2
import numpy as np
import pytest
from data_settings import data_settings
from layout_writers import SMALL, Annotated, write_coco, write_image
from raw_reading import read

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import gtsdb
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

# The first lines of the release. The ReadMe.txt: 11 = priority at next intersection (danger),
# 40 = roundabout (mandatory), 38 = keep right (mandatory), 13 = give way (other).
LINES = (
    *("00000.ppm;774;411;815;446;11", "00001.ppm;983;388;1024;432;40"),
    *("00001.ppm;386;494;442;552;38", "00001.ppm;973;335;1031;390;13"),
)
SIGNS = {
    "00000.ppm": [("priority at next intersection", 774, 411, 42, 36)],
    "00001.ppm": [
        ("roundabout", 983, 388, 42, 45),
        ("keep right", 386, 494, 57, 59),
        ("give way", 973, 335, 59, 56),
    ],
}


@pytest.fixture
def folder(tmp_path):
    """A function that writes FullIJCNN2013/ with gt.txt, two images and a cut-out."""

    def write(*lines, newline="\n", suffix=".ppm"):
        root = tmp_path / "FullIJCNN2013"
        (root / "11").mkdir(parents=True, exist_ok=True)
        for number in range(2):
            cv2.imwrite(str(root / f"{number:05d}{suffix}"), np.zeros((800, 1360, 3), np.uint8))
        cv2.imwrite(str(root / "11/00000.ppm"), np.zeros((36, 42, 3), np.uint8))
        (root / "ReadMe.txt").write_text("1. About this file\n", encoding="utf-8")
        text = "\n".join([*lines, ""])
        (root / "gt.txt").write_text(text, encoding="utf-8", newline=newline)
        return root

    return write


def signs(content) -> dict[str, list[tuple]]:
    return {
        image.file_name: [(o.class_name, *o.box) for o in image.objects] for image in content.images
    }


def test_the_release_is_read(folder):
    root = folder(*LINES)
    found = find_layout(root.parent)
    assert (found.place, found.layout.name, found.layout.splits) == (root, "gtsdb", ("train",))
    content = read(gtsdb.find, root)
    assert signs(content) == SIGNS and not content.notes
    assert len(set(content.class_names)) == 43
    numbered = {0: "speed limit 20", 14: "stop", 30: "snow", 41: "restriction ends (overtaking)"}
    assert {number: content.class_names[number] for number in numbered} == numbered
    assert [name for name, find in FINDERS.items() if find(root) is not None] == ["gtsdb"]


@pytest.mark.parametrize("suffix", [".ppm", ".png"])
def test_the_records_have_the_pixels_of_the_images_and_not_of_cut_outs(folder, tmp_path, suffix):
    root = folder(LINES[0], newline="\r\n", suffix=suffix)
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    truth = load_dataset(settings, "train").ground_truth()
    assert [a["bbox"] for a in truth["annotations"]] == [[774, 411, 42, 36]]
    # The second image has no signs.
    assert [(i["width"], i["height"]) for i in truth["images"]] == 2 * [(1360, 800)]


def test_a_cut_out_is_not_taken_for_a_missing_image(folder, tmp_path):
    root = folder(*LINES)
    (root / "00000.ppm").unlink()
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    wanted = r"image '00000\.ppm': height x width is 800 x 1360, but .*11/00000\.ppm has 36 x 42"
    with pytest.raises(DataError, match=wanted):
        load_dataset(settings, "train")
    (root / "11/00000.ppm").unlink()
    with pytest.raises(DataError, match=r"gt\.txt: image '00000\.ppm': .*00000\.ppm"):
        load_dataset(settings, "train")


def test_a_conversion_to_coco_is_preferred(folder):
    root = folder(*LINES)
    write_coco(root, SMALL)
    assert find_layout(root).layout.name == "coco"


@pytest.mark.parametrize(
    "bad, message",
    [
        ("00001.ppm;1;2;3;4", "line 2: is '00001.ppm;1;2;3;4'; write an image; left; top"),
        ("00001.ppm;1;2;3;x;5", "line 2: is '00001.ppm;1;2;3;x;5'"),
        (";1;2;3;4;5", "line 2: is ';1;2;3;4;5'"),
        ("00001.ppm;1;2;3;4;43", "line 2: has the class 43; write 0 to 42"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder(LINES[0], bad)
    with pytest.raises(DataError) as error:
        read(gtsdb.find, root)
    assert message in str(error.value) and "gt.txt" in str(error.value)
    found = signs(read(gtsdb.find, root, on_error="skip"))
    assert found == {"00000.ppm": SIGNS["00000.ppm"], "00001.ppm": []}


@pytest.mark.parametrize("name, line", [("gt.txt", "cat.jpg;1;2;3;4;5"), ("train.txt", LINES[0])])
def test_other_lists_are_not_of_this_layout(tmp_path, name, line):
    write_image(tmp_path, Annotated("cat.jpg", 64, 48))
    (tmp_path / name).write_text(f"{line}\n", encoding="utf-8")
    assert gtsdb.find(tmp_path) is None
